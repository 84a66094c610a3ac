"""Attention in one pass of compiled code: AVX-512 and torch's own matrix kernel (AMX), on Linux and x86-64.

Every (query, key) pair is scored once, in its band. Rotation happens where queries and keys are packed for the matrix
kernel, in float32 and rounded once (cos and sin of keys in bfloat16 come in float16); what bands cost beyond plain
attention is that packing, and the tiles at their edges. Measured in docs/performance.md against torch's sdpa with
transformers' rotary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.attention.build import missing
from ropewalk.attention.tables import Tables
from ropewalk.attention.variants import Variants, variants
from ropewalk.plan import Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec

DTYPES = (torch.bfloat16, torch.float32)
NOTHING = torch.empty(0)
KEPT = 64  # plans; a batch has one per distinct row
NOWHERE = torch.empty(0, dtype=torch.int64)
NO_MASK = torch.empty(0, dtype=torch.bool)


@dataclass(frozen=True)
class Maps:
    """Distinct maps, and the two variants of those that differ from head to head."""

    maps: list[PositionMap]
    variants: list[Variants | None]

    @classmethod
    def of(cls, maps: Sequence[PositionMap]) -> "Maps":
        found = list(dict.fromkeys(maps))
        return cls(found, [variants(to) if to.per_head else None for to in found])

    @property
    def refused(self) -> bool:
        """True when a map has more than two variants."""
        return any(to.per_head and both is None for to, both in zip(self.maps, self.variants, strict=True))


@dataclass(frozen=True)
class Bands:
    """The one-sided regions of a plan, four numbers each, and which of its distinct maps hold in each.

    Attributes:
        refused: why such bands cannot be run, or None.
    """

    regions: list[int]
    keys: Maps
    key_of: list[int]
    queries: Maps
    query_of: list[int]
    refused: str | None

    @classmethod
    def of(cls, plan: Plan) -> "Bands":
        sides = [(side, band) for band in plan.bands for side in band.region.sides]
        keys, queries = (Maps.of([getattr(band, name) for _, band in sides]) for name in ("key", "query"))
        key_of = [keys.maps.index(band.key) for _, band in sides]
        query_of = [queries.maps.index(band.query) for _, band in sides]
        flat = [number for side, _ in sides for number in numbers(side)]
        several = "a rotary pair has more than two scales or offsets over heads"
        return cls(flat, keys, key_of, queries, query_of, several if keys.refused or queries.refused else None)


class TurningTables(Tables):
    """Tables that turn keys in compiled code, which takes a third of the time for a single key."""

    def turn(
        self, x: Tensor, to: PositionMap, plan: Plan, layer: int, positions: Tensor | range, spec: RotarySpec
    ) -> Tensor:
        if x.dtype not in DTYPES or to.per_head:
            return super().turn(x, to, plan, layer, positions, spec)
        cos, sin = self.get(to, plan, layer, positions, x.device)
        interleaved = spec.layout == "interleaved"
        return torch.ops.ropewalk.turn(_dense(x), cos, sin, spec.rotary_start, interleaved)


def numbers(region: Region) -> list[int]:
    """A one-sided region as the compiled code takes it: lo, hi (-1: none), chunk, whether it looks ahead."""
    return [region.lo, -1 if region.hi is None else region.hi, region.chunk, int(region.side == "future")]


class Compiled(Backend):
    """C++ that is compiled on first use and kept in the user's cache; bfloat16 and float32 on a CPU."""

    name = "compiled"
    tables: Tables

    def __init__(self) -> None:
        self.tables = TurningTables()
        # float16: half the bytes, rounded by an eighth of what bfloat16 rounds keys by.
        self._of_keys = {torch.float32: self.tables, torch.bfloat16: Tables(torch.float16)}
        self._known: dict[int, tuple[Plan, Bands]] = {}

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        if device.type != "cpu":
            return f"it runs on a CPU, not on {device.type!r}"
        if dtype not in DTYPES:
            return f"it computes in bfloat16 and float32, not in {str(dtype).removeprefix('torch.')}"
        if grad:
            return "it has no gradients"
        return self._bands(plan).refused or missing(dtype)

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        total, new = inputs.key.shape[2], inputs.query.shape[2]
        bands = self._bands(plan)
        if inputs.rotated is None:
            held = [inputs.key] * len(bands.keys.maps)
            kept = self._of_keys[inputs.query.dtype]
            key_tables, key_masks, _ = self._angles(bands.keys, inputs, plan, layer, 0, kept)
        else:
            held = [inputs.rotated[to] for to in bands.keys.maps]
            key_tables, key_masks = [NOTHING] * 4 * len(held), [NO_MASK] * len(held)
        query_angles = self._angles(bands.queries, inputs, plan, layer, total - new, self.tables)
        factors = plan.query_scale(inputs.key_positions()[total - new :]) if plan.log_n is not None else None
        output, lse = torch.ops.ropewalk.attend(
            _dense(inputs.query),
            [_dense(key) for key in held],
            _dense(inputs.value),
            [total - key.shape[2] for key in held],
            key_tables,
            key_masks,
            *query_angles,
            bands.key_of,
            bands.query_of,
            bands.regions,
            NOWHERE if inputs.positions is None else inputs.positions,
            inputs.scaling * plan.logit_scale,
            inputs.softcap or 0.0,
            NOTHING if factors is None else factors.float(),
            NOTHING if inputs.sinks is None else inputs.sinks.float(),
            spec.rotary_start,
            spec.layout == "interleaved",
        )
        return output, lse

    def _bands(self, plan: Plan) -> Bands:
        """The bands of a plan, known by the plan itself: to hash equal plans takes longer than a step of decoding."""
        known = self._known.get(id(plan))
        if known is None or known[0] is not plan:
            if len(self._known) >= KEPT:
                self._known.clear()
            known = self._known[id(plan)] = (plan, Bands.of(plan))
        return known[1]

    def _angles(
        self, maps: Maps, inputs: Inputs, plan: Plan, layer: int, first: int, kept: Tables
    ) -> tuple[list[Tensor], list[Tensor], list[int]]:
        """cos and sin under each map, four tensors a map; masks; and the row of slot `first` in the tables of each map.

        A map that differs from head to head gives the tables of its two variants.
        """
        total, device = inputs.key.shape[2], inputs.query.device
        tables: list[Tensor] = []
        masks: list[Tensor] = []
        rows: list[int] = []
        for to, both in zip(maps.maps, maps.variants, strict=True):
            row = 0
            for one in (to,) if both is None else (both.first, both.second):
                if inputs.positions is not None:
                    cos, sin = kept.get(one, plan, layer, inputs.positions[first:], device)
                else:
                    cos, sin, row = kept.around(one, plan, layer, range(first, total), device)
                tables += (cos, sin)
            if both is None:
                tables += (NOTHING, NOTHING)
            masks.append(NO_MASK if both is None else both.mask(layer, plan.table.pairs))
            rows.append(row)
        return tables, masks, rows


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


BACKENDS.register("compiled")(Compiled())
