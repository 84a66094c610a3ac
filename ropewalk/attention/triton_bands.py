"""A plan as the Triton kernel takes it: each band's region, the turns of its maps, and where the second one holds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.attention.stepped import TILE, Stepped, unsteady
from ropewalk.attention.variants import variants
from ropewalk.plan import Band, Plan, PositionMap
from ropewalk.rotary import FrequencyTable

UNBOUNDED = 2**30  # tokens
KEPT = 256  # plans of a layer

Turns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Prepared:
    """The bands of a plan on one layer.

    Attributes:
        plan: of which they are.
        tokens: that the tables serve.
        bands: see `triton_kernel.decode`.
    """

    plan: Plan
    tokens: int
    bands: tuple[Any, ...]


class Preparer:
    """Bands with their tables, which layers share and which grow by doubling.

    Plans are known by their identity: to hash equal ones takes longer than a step of decoding in a layer.
    """

    def __init__(self) -> None:
        self._refused: dict[int, tuple[Plan, str | None]] = {}
        self._prepared: dict[tuple[int, int, torch.device], Prepared] = {}
        self._stepped: dict[tuple[PositionMap, FrequencyTable, int, torch.device], Stepped] = {}

    def refused(self, plan: Plan) -> str | None:
        """Why the kernel cannot carry a plan out, or None when it can."""
        known = self._refused.get(id(plan))
        if known is None or known[0] is not plan:
            if len(self._refused) >= KEPT:
                self._refused.clear()
            known = self._refused[id(plan)] = (plan, _refused(plan))
        return known[1]

    def bands(self, plan: Plan, layer: int, total: int, device: torch.device) -> tuple[Any, ...]:
        """The bands of a plan that is not refused, with tables for `total` tokens at least."""
        key = (id(plan), layer, device)
        known = self._prepared.get(key)
        if known is None or known.plan is not plan or known.tokens < total:
            if len(self._prepared) >= KEPT:
                self._prepared.clear()
                self._stepped.clear()
            tokens = max(TILE, 1 << (total - 1).bit_length())
            bands = tuple(self._band(band, plan, layer, tokens, device) for band in plan.bands)
            known = self._prepared[key] = Prepared(plan, tokens, bands)
        return known.bands

    def _band(self, band: Band, plan: Plan, layer: int, tokens: int, device: torch.device) -> tuple[Any, ...]:
        region = band.region
        hi = UNBOUNDED // region.chunk if region.hi is None else region.hi
        mask = None
        queries: tuple[PositionMap, ...] = (band.query,)
        keys: tuple[PositionMap, ...] = (band.key,)
        if band.key.per_head:
            of_query, of_key = variants(band.query), variants(band.key)
            assert of_query is not None and of_key is not None
            queries, keys = (of_query.first, of_query.second), (of_key.first, of_key.second)
            mask = of_key.mask(layer, plan.table.pairs).to(device, torch.int8)
        turns = tuple(
            tuple(self._turns(to, plan.table, layer, tokens, device) for to in pair)
            for pair in zip(queries, keys, strict=True)
        )
        return (region.lo, hi, region.chunk), turns, mask

    def _turns(self, to: PositionMap, table: FrequencyTable, layer: int, tokens: int, device: torch.device) -> Turns:
        key = (to, table, layer if to.per_layer or table.per_layer else 0, device)
        known = self._stepped.get(key)
        if known is None or known.tokens < tokens:
            known = self._stepped[key] = Stepped.of(to, table.theta(layer).to(device), layer, tokens)
        return known.turns


def _refused(plan: Plan) -> str | None:
    if plan.bidirectional:
        return "tokens see later ones"
    for band in plan.bands:
        for to in (band.query, band.key):
            reason = unsteady(to)
            if reason is not None:
                return reason
        if band.query.per_head != band.key.per_head:
            return "query heads differ in the positions of queries or of keys, but not of both"
        if band.key.per_head:
            of_query, of_key = variants(band.query), variants(band.key)
            if of_query is None or of_key is None:
                return "a rotary pair has more than two scales or offsets over heads"
            if of_query.masks.shape != of_key.masks.shape or not torch.equal(of_query.masks, of_key.masks):
                return "queries and keys differ in where query heads differ"
    return None
