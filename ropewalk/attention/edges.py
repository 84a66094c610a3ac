"""Which keys each query sees in a band, as two edges: all that a kernel needs to know of a region."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ropewalk.plan import Region


def edges(regions: Sequence[Region], keys: int, queries: int, positions: Tensor | None = None) -> Tensor:
    """What the last T of S tokens see in each region, as ranges of key indices, int32 [regions, 2, T].

    Query t sees the keys [low, high); both grow with t. A region that it does not reach has low = high.

    Args:
        regions: one-sided ones (`Region.sides`).
        keys: S.
        queries: T.
        positions: token positions of the keys, int64 [S], ascending; None for 0 ... S - 1.
    """
    n = None if positions is None else positions.numpy()
    m = np.arange(keys - queries, keys) if n is None else n[keys - queries :]
    found = np.empty((len(regions), 2, queries), dtype=np.int32)
    for i, region in enumerate(regions):
        low, high = _positions(region, m, int(m[-1]) + 1)
        if n is not None:
            low, high = np.searchsorted(n, low), np.searchsorted(n, high)
        found[i] = np.minimum(low, high), high
    return torch.from_numpy(found)


def _positions(region: Region, m: np.ndarray, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions [low, high) that queries at the positions m see in a one-sided region."""
    own = m // region.chunk
    if region.side == "future":
        low = np.maximum((own + region.lo) * region.chunk, m + 1)
        high = np.full_like(m, stop) if region.hi is None else (own + region.hi) * region.chunk
        return np.minimum(low, stop), np.minimum(high, stop)
    low = np.zeros_like(m) if region.hi is None else np.maximum((own - region.hi + 1) * region.chunk, 0)
    high = np.minimum((own - region.lo + 1) * region.chunk, m + 1)
    return low, np.maximum(high, 0)
