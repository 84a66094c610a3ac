"""What a model's rotary embedding is, found by running one token through it, not by a table of families.

The rotary module is made to return chosen cos and sin, and our attention function records the queries and keys that
arrive. cos = 1, sin = 0 shows them as they are; cos = 0, sin = 1 shows which dimension turns into which; cos = 2^digit
shows, digit by digit and exactly in any dtype, which column of cos each dimension is multiplied with.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ropewalk.rotary import Layout

DIGITS = 4  # base 8: columns up to number 4,095 over all rotary modules of a model
RotaryKey = tuple[str, str | None]  # path of the rotary module, layer type that it was called with


class LayoutError(Exception):
    """The rotation that was seen is not one of the two layouts; the caller names the model."""


@dataclass
class Capture:
    """Queries and keys of one attention module under one probe, and how it was called."""

    query: Tensor  # [heads, head_dim]
    key: Tensor  # [kv_heads, head_dim]
    window: int | None
    value_dim: int
    ahead: bool = False  # tokens see later ones
    in_chunks: bool = False  # and none of another chunk of so many tokens as the window says


@dataclass
class Records:
    """What the probe runs saw.

    Attributes:
        widths: number of columns of cos per rotary call, in the order of first call.
        captures: per attention module (in the order of first call), one capture per probe.
    """

    widths: dict[RotaryKey, int] = field(default_factory=dict)
    captures: dict[nn.Module, dict[str, Capture]] = field(default_factory=dict)


def probes() -> list[str]:
    """Names of the probes, in the order in which they are run."""
    return ["as-is", "turned"] + [f"{part}-{digit}" for part in ("cos", "sin") for digit in range(DIGITS)]


def answer(probe: str, first: int, width: int) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [width], that a rotary module returns under a probe; columns are numbered from `first`."""
    ones, zeros = torch.ones(width), torch.zeros(width)
    if probe == "as-is":
        return ones, zeros
    if probe == "turned":
        return zeros, ones
    part, digit = probe.split("-")
    powers = 2.0 ** ((torch.arange(first, first + width) // 8 ** int(digit)) % 8)
    return (powers, zeros) if part == "cos" else (zeros, powers)


@dataclass(frozen=True)
class Rotation:
    """How one attention module rotates: `columns[d]` of cos and sin for every rotated dimension."""

    rotary: RotaryKey
    layout: Layout
    start: int
    rotary_dim: int
    columns: tuple[int, ...]


def read_rotation(captures: dict[str, Capture], widths: dict[RotaryKey, int]) -> Rotation | None:
    """The rotation of one attention module, None when it does not rotate.

    Raises:
        LayoutError: queries and keys differ, or the rotation is of neither layout, or more happens than a rotation.
    """
    query = _read({name: capture.query for name, capture in captures.items()}, widths)
    key = _read({name: capture.key for name, capture in captures.items()}, widths)
    if query != key:
        raise LayoutError("queries and keys are rotated differently")
    return query


def _read(seen: dict[str, Tensor], widths: dict[RotaryKey, int]) -> Rotation | None:
    plain, turned = seen["as-is"].float(), seen["turned"].float()
    if not bool(plain.isfinite().all()) or bool((plain == 0).all(0).any()):
        raise LayoutError("queries or keys are zero or not finite for the probe token")
    moved = (turned != plain).any(0)
    if not bool(moved.any()):
        return None
    dims = moved.nonzero().flatten()
    start, rotary_dim = int(dims[0]), len(dims)
    if int(dims[-1]) - start + 1 != rotary_dim or rotary_dim % 2:
        raise LayoutError("the rotated dimensions are not one even block")
    numbers = _columns(seen, "cos", plain, dims)
    if not torch.equal(numbers, _columns(seen, "sin", turned, dims)):
        raise LayoutError("cos and sin are applied to different dimensions")
    block, turned = plain[:, dims], turned[:, dims]
    half = torch.cat((-block[:, rotary_dim // 2 :], block[:, : rotary_dim // 2]), 1)
    interleaved = torch.stack((-block[:, 1::2], block[:, 0::2]), 2).flatten(1)
    layout: Layout
    if torch.equal(turned, half):
        layout = "half"
    elif torch.equal(turned, interleaved):
        layout = "interleaved"
    else:
        raise LayoutError("the rotation is neither of halves nor of neighbours")
    first = 1
    for rotary, width in widths.items():
        columns = numbers - first
        if bool((columns >= 0).all()) and bool((columns < width).all()):
            return Rotation(rotary, layout, start, rotary_dim, tuple(columns.tolist()))
        first += width
    raise LayoutError("one layer uses several rotary modules")


def _columns(seen: dict[str, Tensor], part: str, base: Tensor, dims: Tensor) -> Tensor:
    """The number of the column that each rotated dimension is multiplied with, from its digits."""
    number = torch.zeros(len(dims), dtype=torch.int64)
    for digit in range(DIGITS):
        power = (seen[f"{part}-{digit}"].float() / base)[:, dims].log2()
        if not bool((power == power[:1]).all()) or not bool((power == power.round()).all()):
            raise LayoutError("something is done to queries or keys after they are rotated")
        number += power[0].long() * 8**digit
    return number
