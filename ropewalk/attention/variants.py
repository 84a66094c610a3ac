"""Position maps of their own for every head, as two maps for all heads and a mask that picks between them.

A key-dimension mask per head (DPE) leaves every rotary pair one of two scales. So the angles of all heads come from two
tables, and none is made per head.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ropewalk.grid import Grid
from ropewalk.plan import PositionMap


@dataclass(frozen=True)
class Variants:
    """Two maps that are the same for all heads and layers, and where the second one holds.

    Attributes:
        masks: bool [layers or 1, heads, pairs or 1].
    """

    first: PositionMap
    second: PositionMap
    masks: Tensor

    def mask(self, layer: int, pairs: int) -> Tensor:
        """Where the second map holds, bool [heads, pairs], contiguous."""
        return self.masks[layer if len(self.masks) > 1 else 0].expand(-1, pairs).contiguous()


@lru_cache(maxsize=64)
def variants(to: PositionMap) -> Variants | None:
    """The two maps of a map per head, or None where a rotary pair has more than two over layers and heads."""
    scale, offset = np.broadcast_arrays(to.scale.array, to.offset.array)
    low = scale.min((0, 1))
    second = scale != low
    high = scale.max((0, 1))
    firsts = _one(offset, ~second)
    others = _one(offset, second)
    if firsts is None or others is None or not ((scale == low) | (scale == high)).all():
        return None
    others = np.where(second.any((0, 1)), others, firsts)
    return Variants(
        replace(to, scale=Grid(low), offset=Grid(firsts)),
        replace(to, scale=Grid(high), offset=Grid(others)),
        torch.from_numpy(np.ascontiguousarray(second)),
    )


def _one(values: np.ndarray, where: np.ndarray) -> np.ndarray | None:
    """The one value of each pair in the places asked for (0 where there is no place), or None where it has several."""
    largest = np.where(where, values, -np.inf).max((0, 1))
    smallest = np.where(where, values, np.inf).min((0, 1))
    somewhere = where.any((0, 1))
    if (largest != smallest)[somewhere].any():
        return None
    return np.where(somewhere, largest, 0.0)
