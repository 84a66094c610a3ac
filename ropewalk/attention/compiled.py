"""Attention in one pass of compiled code: AVX-512 and torch's own matrix kernel (AMX), on Linux and x86-64.

Every (query, key) pair is scored once, in its band. Rotation happens where queries and keys are packed for the matrix
kernel, in float32 and rounded once; what bands cost beyond plain attention is that packing, and the tiles at their
edges. Measured in docs/performance.md against torch's sdpa with transformers' rotary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.attention.build import missing
from ropewalk.attention.tables import Tables
from ropewalk.attention.variants import variants
from ropewalk.plan import Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec

DTYPES = (torch.bfloat16, torch.float32)
NOTHING = torch.empty(0)
KEPT = 64  # plans; a batch has one per distinct row
NOWHERE = torch.empty(0, dtype=torch.int64)
NO_MASK = torch.empty(0, dtype=torch.bool)


@dataclass(frozen=True)
class Bands:
    """The one-sided regions of a plan, four numbers each, and which of its distinct maps hold in each.

    Attributes:
        refused: why such bands cannot be run, or None.
    """

    regions: list[int]
    keys: list[PositionMap]
    key_of: list[int]
    queries: list[PositionMap]
    query_of: list[int]
    refused: str | None

    @classmethod
    def of(cls, plan: Plan) -> "Bands":
        sides = [(side, band) for band in plan.bands for side in band.region.sides]
        keys = _distinct([band.key for _, band in sides])
        queries = _distinct([band.query for _, band in sides])
        flat = [number for side, _ in sides for number in numbers(side)]
        several = any(to.per_head and variants(to) is None for to in (*keys[0], *queries[0]))
        refused = "a rotary pair has more than two scales or offsets over heads" if several else None
        return cls(flat, *keys, *queries, refused)


class TurningTables(Tables):
    """Tables that turn keys in compiled code, which takes a third of the time for a single key."""

    def turn(
        self, x: Tensor, to: PositionMap, plan: Plan, layer: int, positions: Tensor | range, spec: RotarySpec
    ) -> Tensor:
        if x.dtype not in DTYPES or x.shape[-1] % 16 or to.per_head:
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
            held = [inputs.key] * len(bands.keys)
            key_tables, key_masks = self._angles(bands.keys, inputs, plan, layer, 0)
        else:
            held = [inputs.rotated[to] for to in bands.keys]
            key_tables, key_masks = [NOTHING] * 4 * len(held), [NO_MASK] * len(held)
        query_tables, query_masks = self._angles(bands.queries, inputs, plan, layer, total - new)
        factors = plan.query_scale(inputs.key_positions()[total - new :]) if plan.log_n is not None else None
        output, lse = torch.ops.ropewalk.attend(
            _dense(inputs.query),
            [_dense(key) for key in held],
            _dense(inputs.value),
            [total - key.shape[2] for key in held],
            key_tables,
            key_masks,
            query_tables,
            query_masks,
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
        self, maps: Sequence[PositionMap], inputs: Inputs, plan: Plan, layer: int, first: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """cos and sin of the positions from slot `first` on under each map, four tensors a map, and masks.

        A map that differs from head to head gives those of its two variants.
        """
        total = inputs.key.shape[2]
        positions: Tensor | range = range(first, total) if inputs.positions is None else inputs.positions[first:]
        tables: list[Tensor] = []
        masks: list[Tensor] = []
        for to in maps:
            both = variants(to) if to.per_head else None
            for one in (to,) if both is None else (both.first, both.second):
                cos, sin = self.tables.get(one, plan, layer, positions, inputs.query.device)
                tables += (cos, sin)
            if both is None:
                tables += (NOTHING, NOTHING)
            masks.append(NO_MASK if both is None else both.mask(layer, plan.table.pairs))
        return tables, masks


def _distinct(maps: Sequence[PositionMap]) -> tuple[list[PositionMap], list[int]]:
    """The maps without repetition, and which of them each one is."""
    found = list(dict.fromkeys(maps))
    return found, [found.index(to) for to in maps]


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


BACKENDS.register("compiled")(Compiled())
