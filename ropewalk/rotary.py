"""Rotary position embedding: what a model has (RotarySpec), what a method makes of it (FrequencyTable), and rotation.

A rotary pair i turns by theta_i * p radians at position p (RoFormer, arXiv 2104.09864, eq. 14). Pairs are dimensions
(i, i + pairs) in the half layout and (2i, 2i + 1) in the interleaved one.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ropewalk.errors import MethodError
from ropewalk.grid import Grid

Layout = Literal["half", "interleaved"]
SLICE = 2**18  # numbers turned at once on a CPU


@dataclass(frozen=True)
class FrequencyTable:
    """What theta_i is, and the attention factor that goes with it.

    Attributes:
        inv_freq: theta_i in radians per token, [layers or 1, 1, pairs].
        attention_scaling: multiplies cos and sin of query and key, so logits of rotated dimensions by its square.
    """

    inv_freq: Grid
    attention_scaling: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inv_freq", Grid.of(self.inv_freq))
        theta = self.inv_freq.array
        if not (np.isfinite(theta).all() and (theta >= 0).all()):
            raise MethodError("a frequency table needs finite inverse frequencies >= 0 (radians per token)")
        if not (np.isfinite(self.attention_scaling) and self.attention_scaling > 0):
            raise MethodError(f"attention_scaling must be a positive number, got {self.attention_scaling}")

    @property
    def pairs(self) -> int:
        """Number of rotary pairs."""
        return self.inv_freq.array.shape[2]

    @property
    def per_layer(self) -> bool:
        """True when layers differ, so that one rotary module cannot serve them all."""
        return self.inv_freq.array.shape[0] > 1

    def theta(self, layer: int = 0) -> Tensor:
        """theta_i of one layer, float64 [pairs], radians per token."""
        return torch.tensor(self.inv_freq.layer(layer)[0], dtype=torch.float64)

    def to_json(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        return {"inv_freq": self.inv_freq.to_json(arrays), "attention_scaling": self.attention_scaling}

    @classmethod
    def from_json(cls, value: dict[str, Any], arrays: dict[str, np.ndarray]) -> "FrequencyTable":
        return cls(Grid.from_json(value["inv_freq"], arrays), value["attention_scaling"])


@dataclass(frozen=True)
class RotarySpec:
    """The rotary embedding of a model, read once from the model and never guessed later.

    Attributes:
        head_dim: width of a query or key head, with the dimensions that are not rotated.
        rotary_dim: how many of them are rotated, twice the number of pairs.
        rotary_start: first rotated dimension (not 0 where the rotated part is the tail of the head, as in MLA).
        layout: "half" (i, i + pairs) or "interleaved" (2i, 2i + 1).
        base: theta_i = base^(-2i / rotary_dim) of the table that the model was first trained with.
        pretrained_length: the window that the model was trained on, tokens.
        layer_kinds: per layer "full" (looks at everything), "sliding" (its own window) or "none" (no rotation).
        inv_freq: theta_i as the model has it (its float32 values), radians per token.
        attention_scaling: factor on cos and sin that the model's own table carries.
        scaling: name of the table that the checkpoint already carries ("yarn", "llama3", ...), or None.
        bidirectional: tokens see later ones too (encoders).
        stretched_from: the trained window where a joined table stretches it to `pretrained_length`, or None.
    """

    head_dim: int
    rotary_dim: int
    base: float
    pretrained_length: int
    num_heads: int
    num_kv_heads: int
    num_layers: int
    inv_freq: tuple[float, ...]
    layout: Layout = "half"
    rotary_start: int = 0
    layer_kinds: tuple[str, ...] = ()
    attention_scaling: float = 1.0
    scaling: str | None = None
    bidirectional: bool = False
    stretched_from: int | None = None

    @property
    def pairs(self) -> int:
        """Number of rotary pairs."""
        return self.rotary_dim // 2

    @property
    def table(self) -> FrequencyTable:
        """The model's own table."""
        return FrequencyTable(Grid(self.inv_freq), self.attention_scaling)

    @property
    def wavelengths(self) -> np.ndarray:
        """Tokens per full turn of each pair, 2 pi / theta_i, float64 [pairs]; infinite where a pair does not turn."""
        with np.errstate(divide="ignore"):
            return 2 * np.pi / np.array(self.inv_freq)


def default_inv_freq(base: float, rotary_dim: int) -> np.ndarray:
    """base^(-2i / rotary_dim) in float64, [pairs], radians per token."""
    return base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def rotation(positions: Tensor, theta: Tensor, scaling: float = 1.0) -> tuple[Tensor, Tensor]:
    """cos and sin of theta_i * position, angles in float64, results in float32, both times `scaling`.

    float32 angles are off by 7.6e-3 in cos at position 131,072. A device without float64 gets tables built on the CPU.

    Args:
        positions: tokens, float64, any shape that broadcasts against theta's [pairs] in its last dimension.
        theta: radians per token, float64 [pairs].
    """
    angles = positions * theta
    return (angles.cos() * scaling).float(), (angles.sin() * scaling).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, spec: RotarySpec) -> Tensor:
    """Rotate the rotary dimensions of x by given angles; the other dimensions pass through.

    The arithmetic is done in the dtype of cos (at least float32) and rounded once to x's dtype. Long inputs are turned
    in slices that stay in the processor's cache: measured 4 times faster on a CPU than in one piece.

    Args:
        x: [..., T, head_dim].
        cos, sin: [..., T or 1, pairs].
    """
    length = x.shape[-2]
    step = max(1, SLICE * length // max(1, x.numel()))
    if length <= step or x.requires_grad or x.is_cuda or cos.shape[-2] == 1:
        return _rotate(x, cos, sin, spec)
    out = torch.empty_like(x)
    for a in range(0, length, step):
        part = slice(a, a + step)
        out[..., part, :] = _rotate(x[..., part, :], cos[..., part, :], sin[..., part, :], spec)
    return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, spec: RotarySpec) -> Tensor:
    start, stop, pairs = spec.rotary_start, spec.rotary_start + spec.rotary_dim, spec.pairs
    wide = x[..., start:stop].to(torch.promote_types(x.dtype, cos.dtype))
    if spec.layout == "half":
        first, second = wide[..., :pairs], wide[..., pairs:]
    else:
        first, second = wide[..., 0::2], wide[..., 1::2]
    turned = (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin))
    rotated = torch.cat(turned, -1) if spec.layout == "half" else torch.stack(turned, -1).flatten(-2)
    rotated = rotated.to(x.dtype)
    if spec.rotary_dim == x.shape[-1]:
        return rotated
    return torch.cat(
        (
            x[..., :start].expand(*rotated.shape[:-1], start),
            rotated,
            x[..., stop:].expand(*rotated.shape[:-1], x.shape[-1] - stop),
        ),
        -1,
    )


def unrotate(x: Tensor, cos: Tensor, sin: Tensor, spec: RotarySpec) -> Tensor:
    """Undo `rotate`: turn back by the same angles. cos and sin must carry no attention scaling."""
    return rotate(x, cos, -sin, spec)
