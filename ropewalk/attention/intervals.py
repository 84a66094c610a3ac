"""Which keys a region lets a query see: an interval of positions, whose ends only grow with the query's position."""

import torch
from torch import Tensor

from ropewalk.plan import Region

FAR = 2**40  # beyond any position


def interval(region: Region, positions: Tensor) -> tuple[Tensor, Tensor]:
    """First and last key position that queries at these positions see, int64 in their shape; last < first: none.

    The region is one-sided or the whole square.
    """
    if region == Region(side="both"):
        return torch.full_like(positions, -FAR), torch.full_like(positions, FAR)
    own = positions // region.chunk
    if region.side == "past":
        last = torch.minimum(positions, (own - region.lo + 1) * region.chunk - 1)
        return (torch.full_like(last, -FAR) if region.hi is None else (own - region.hi + 1) * region.chunk), last
    assert region.side == "future", "a region on both sides is cut in two first"
    first = torch.maximum(positions + 1, (own + region.lo) * region.chunk)
    return first, torch.full_like(first, FAR) if region.hi is None else (own + region.hi) * region.chunk - 1
