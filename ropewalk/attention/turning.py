"""The queries and keys of one call, rotated by every position map of a plan."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ropewalk.attention.base import Inputs
from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate

Turned = Mapping[PositionMap, Tensor]


def turned(inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int, tables: Tables) -> tuple[Turned, Turned]:
    """Queries [B, H, T, D] under each query map and keys [B, K or H, n, D] under each key map.

    Queries carry the plan's log-n scale. Keys that came rotated stay as they are; others have as many heads as the
    queries where query heads that share a key rotate it differently.
    """
    scale = plan.query_scale(_positions(inputs, inputs.query.shape[2]))
    query = inputs.query
    if scale is not None:  # [T], or [B, T] where rows are padded; rounded it would be wrong for every logit of a row
        scale = (scale[:, None] if inputs.rows is not None else scale)[..., None]
        query = (query * scale.to(torch.promote_types(query.dtype, torch.float32))).to(query.dtype)
    maps = dict.fromkeys(band.query for band in plan.bands)
    queries = {to: _turn(query, inputs, to, plan, spec, layer, tables) for to in maps}
    if inputs.rotated is not None:
        return queries, inputs.rotated
    maps = dict.fromkeys(band.key for band in plan.bands)
    return queries, {to: _turn(inputs.key, inputs, to, plan, spec, layer, tables) for to in maps}


def angles(to: PositionMap, inputs: Inputs, plan: Plan, layer: int, tables: Tables, last: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the last tokens under a map, [heads or 1, last, P]; of padded rows [B, heads or 1, last, P]."""
    total, device = inputs.key.shape[2], inputs.query.device
    if inputs.rows is not None:
        return tables.of_rows(to, plan, layer, _positions(inputs, last), total)
    positions: Tensor | range = range(total - last, total)
    if inputs.positions is not None:
        positions = inputs.positions[-last:]
    return tables.get(to, plan, layer, positions, device)


def _turn(
    x: Tensor, inputs: Inputs, to: PositionMap, plan: Plan, spec: RotarySpec, layer: int, tables: Tables
) -> Tensor:
    """Rotate x, the last tokens of the call, by a position map."""
    heads = inputs.query.shape[1]
    if to.per_head and x.shape[1] != heads:
        x = x.repeat_interleave(heads // x.shape[1], 1)
    return rotate(x, *angles(to, inputs, plan, layer, tables, x.shape[2]), spec)


def _positions(inputs: Inputs, last: int) -> Tensor:
    """Positions of the last tokens, int64 [last], or [B, last] where rows are padded (0 for padding before a row)."""
    positions = inputs.key_positions()[-last:]
    if inputs.rows is None:
        return positions
    first = torch.tensor([row[0] for row in inputs.rows], device=positions.device)
    return (positions - first[:, None]).clamp(min=0)
