"""A step of decoding over two distance bands as one call: the keys of the local band are turned for the remote query.

With a and b the query and key maps of the local band and A the query map of the remote one, the angle of a local pair
is theta (a(m) - b(n)) = theta (A(m) - (b(n) + A(m) - a(m))). All keys are held as the remote band wants them, the last
ones also as the local band does; a step turns the latter by theta (A(m) - a(m)), one angle for each rotary pair, and
puts them in the place of the former while it lasts. They are rounded twice then: in bfloat16 a relative error of 2.4e-3
in place of 1.7e-3 (rotated.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ropewalk.attention.base import Inputs
from ropewalk.attention.tables import Tables
from ropewalk.attention.turning import Turned, angles, turned
from ropewalk.plan import Band, Plan, Region
from ropewalk.rotary import RotarySpec, rotate


def tail_and_rest(plan: Plan) -> tuple[Band, Band] | None:
    """The band of the last distances and that of all others, or None where the plan is not these two."""
    if len(plan.bands) != 2:
        return None
    local, remote = sorted(plan.bands, key=lambda band: band.region.lo)
    hi = local.region.hi
    return (local, remote) if hi is not None and (local.region, remote.region) == (Region(0, hi), Region(hi)) else None


@contextmanager
def one_band(
    inputs: Inputs, plan: Plan, local: Band, remote: Band, spec: RotarySpec, layer: int, tables: Tables
) -> Iterator[tuple[Plan, Turned, Turned]]:
    """A plan of one band, its query and its keys, for the one new token of a call.

    Keys that came rotated are written to, and are what they were when the context is left.
    """
    both = replace(plan, bands=(replace(local, query=remote.query), remote))
    queries, keys = turned(inputs, both, spec, layer, tables)
    whole, tail = keys[remote.key], keys[local.key][:, :, -(local.region.hi or 0) :]
    heads = max(whole.shape[1], tail.shape[1])
    if local.query.per_head or remote.query.per_head:
        heads = inputs.query.shape[1]
    whole, tail = (x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1) for x in (whole, tail))
    cos, sin = angles(local.query, inputs, plan, layer, tables, 1)
    far_cos, far_sin = angles(remote.query, inputs, plan, layer, tables, 1)
    square = plan.table.attention_scaling**2  # cos and sin carry the attention scaling, which the keys have already
    tail = rotate(tail, (far_cos * cos + far_sin * sin) / square, (far_sin * cos - far_cos * sin) / square, spec)
    place = whole[:, :, -tail.shape[2] :]
    kept = place.clone()
    place.copy_(tail)
    try:
        yield replace(plan, bands=(Band(Region(), remote.query, remote.key),)), queries, {remote.key: whole}
    finally:
        place.copy_(kept)
