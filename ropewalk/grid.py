"""Grid: the numbers of a plan, one per layer, head and rotary pair, or fewer where they are shared."""

import hashlib
import math
from typing import Any

import numpy as np

from ropewalk.errors import ProfileError

INLINE = 4096  # numbers; larger grids go to the safetensors file beside the JSON


class Grid:
    """A frozen, hashable float64 array that broadcasts over [layers, heads, pairs].

    Every axis has its full length or 1. Infinity is allowed (a scale of infinity makes a position map constant).
    """

    __slots__ = ("array", "digest")
    array: np.ndarray
    digest: str

    def __init__(self, values: Any) -> None:
        array = np.array(values, dtype=np.float64, order="C")
        array = array.reshape((1,) * (3 - array.ndim) + array.shape)
        if array.ndim != 3 or array.size == 0 or np.isnan(array).any():
            raise ValueError(f"a grid is a non-empty array over [layers, heads, pairs] without NaN, got {array.shape}")
        array.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "digest", hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest())

    @classmethod
    def of(cls, values: Any) -> "Grid":
        """`values` as a grid: a grid, a number, [pairs], [heads, pairs] or [layers, heads, pairs]."""
        return values if isinstance(values, Grid) else cls(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Grid is frozen")

    def __reduce__(self) -> tuple[type["Grid"], tuple[np.ndarray]]:
        return Grid, (self.array,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        if self.array.size == 1:
            return f"Grid({self.array.item():g})"
        return f"Grid{self.array.shape}"

    def equals(self, number: float) -> bool:
        """True when every entry is `number`."""
        return bool((self.array == number).all())

    def layer(self, layer: int) -> np.ndarray:
        """The numbers of one layer, [heads or 1, pairs or 1]."""
        return self.array[layer if self.array.shape[0] > 1 else 0]

    def to_json(self, arrays: dict[str, np.ndarray]) -> Any:
        """A number or nested list; a grid of more than `INLINE` numbers goes into `arrays` under its hash."""
        if self.array.size > INLINE:
            arrays[self.digest] = self.array
            return {"sha256": self.digest}
        array = self.array
        while array.ndim and array.shape[0] == 1:
            array = array[0]
        return _finite(array.tolist())

    @classmethod
    def from_json(cls, value: Any, arrays: dict[str, np.ndarray]) -> "Grid":
        """Undo `to_json`; raises ProfileError when a referenced array is missing or is not the one that was saved."""
        if not isinstance(value, dict):
            return cls(_infinite(value))
        digest = value.get("sha256")
        if digest not in arrays:
            raise ProfileError(f"the plan refers to array {digest!r}, which is not in its safetensors file")
        grid = cls(arrays[digest])
        if grid.digest != digest:
            raise ProfileError(f"array {digest!r} does not have the hash that it is stored under; the file was changed")
        return grid


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return "inf" if math.isinf(value) else value


def _infinite(value: Any) -> Any:
    if isinstance(value, list):
        return [_infinite(v) for v in value]
    return float(value)
