"""Reading a rotation from what one token shows, on rotations that are written here."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ropewalk.models.probe import Capture, LayoutError, RotaryKey, answer, probes, read_rotation

HEAD_DIM = 14
ONE: dict[RotaryKey, int] = {("rotary", None): 10}
After = Callable[[Tensor], Tensor]


def half(block: Tensor) -> Tensor:
    pairs = block.shape[-1] // 2
    return torch.cat((-block[..., pairs:], block[..., :pairs]), -1)


def interleaved(block: Tensor) -> Tensor:
    return torch.stack((-block[..., 1::2], block[..., 0::2]), -1).flatten(-2)


def captures(
    turn: Callable[[Tensor], Tensor],
    columns: Sequence[int],
    *,
    start: int = 0,
    widths: dict[RotaryKey, int] = ONE,
    after: After = lambda x: x,
    after_key: After | None = None,
    sin_columns: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    query: Tensor | None = None,
) -> dict[str, Capture]:
    """What a model shows that rotates len(columns) dimensions from `start`; columns count over all rotaries."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, HEAD_DIM, generator=generator) if query is None else query
    k = torch.randn(2, HEAD_DIM, generator=generator)
    seen = {}
    for probe in probes():
        told, first = [], 1
        for width in widths.values():
            told.append(answer(probe, first, width))
            first += width
        cos = torch.cat([cos for cos, _ in told])[list(columns)].to(dtype)
        sin = torch.cat([sin for _, sin in told])[list(sin_columns or columns)].to(dtype)

        def rotated(x: Tensor, cos: Tensor = cos, sin: Tensor = sin) -> Tensor:
            x = x.to(dtype)
            block = x[:, start : start + len(columns)]
            return torch.cat((x[:, :start], block * cos + turn(block) * sin, x[:, start + len(columns) :]), 1)

        seen[probe] = Capture(after(rotated(q)), (after_key or after)(rotated(k)), None, HEAD_DIM)
    return seen


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], list[int], int, str]] = {
    "half, all dimensions of ten": (half, [*range(5), *range(5)], 0, "half"),
    "half, columns written twice": (half, list(range(10)), 0, "half"),
    "interleaved": (interleaved, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], 0, "interleaved"),
    "partial": (half, [0, 1, 2, 0, 1, 2], 0, "half"),
    "tail": (interleaved, [0, 0, 1, 1], HEAD_DIM - 4, "interleaved"),
    "middle": (half, [0, 1, 0, 1], 3, "half"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_rotation_is_read(name: str, dtype: torch.dtype) -> None:
    turn, columns, start, layout = LAYOUTS[name]
    found = read_rotation(captures(turn, columns, start=start, dtype=dtype), ONE)
    assert found is not None
    assert (found.layout, found.start, found.rotary_dim) == (layout, start, len(columns))
    assert found.columns == tuple(columns)
    assert found.rotary == ("rotary", None)


def test_second_rotary_of_a_model_is_told_from_the_first() -> None:
    widths: dict[RotaryKey, int] = {("first", None): 1000, ("second", "full_attention"): 10}
    columns = [1000 + c for c in (0, 1, 2, 0, 1, 2)]
    found = read_rotation(captures(half, columns, widths=widths), widths)
    assert found is not None
    assert (found.rotary, found.columns) == (("second", "full_attention"), (0, 1, 2, 0, 1, 2))


def test_layer_that_does_not_rotate_is_none() -> None:
    assert read_rotation(captures(half, []), ONE) is None


def backwards(block: Tensor) -> Tensor:
    return -half(block)


def normalised(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "zero query": ({"query": torch.zeros(4, HEAD_DIM)}, "zero or not finite"),
    "infinite query": ({"query": torch.full((4, HEAD_DIM), torch.inf)}, "zero or not finite"),
    "odd block": ({"columns": [0, 1, 2], "turn": lambda block: block.roll(1, -1)}, "one even block"),
    "two blocks": (
        {
            "columns": [0, 1, 2, 2, 0, 1],
            "turn": half,
            "after": lambda x: x[:, [0, 1, 2, 12, 13, 3, 4, 5, *range(6, 12)]],
        },
        "one even block",
    ),
    "cos and sin of different pairs": ({"sin_columns": [1, 0, 2, 1, 0, 2]}, "different dimensions"),
    "turned the other way": ({"turn": backwards}, "neither of halves nor of neighbours"),
    "normalised after the rotation": ({"after": normalised}, "after they are rotated"),
    "two rotary modules in one layer": ({"columns": [0, 1, 11, 0, 1, 11]}, "several rotary modules"),
    "keys another way": ({"after_key": lambda x: torch.cat((x[:, 8:], x[:, :8]), 1)}, "differently"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_known_rotation_is_refused(name: str) -> None:
    changes, message = REFUSED[name]
    widths: dict[RotaryKey, int] = {("first", None): 10, ("second", None): 10}
    given: dict[str, Any] = {"turn": half, "columns": [0, 1, 2, 0, 1, 2], "widths": widths} | changes
    with pytest.raises(LayoutError, match=message):
        read_rotation(captures(given.pop("turn"), given.pop("columns"), **given), widths)


def test_digits_number_every_column_exactly() -> None:
    numbers = torch.zeros(3000)
    for digit in range(4):
        numbers += answer(f"cos-{digit}", 1, 3000)[0].log2() * 8**digit
    assert torch.equal(numbers, torch.arange(1, 3001).float())
