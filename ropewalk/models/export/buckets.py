"""The frequency tables of a method that an engine without ropewalk can carry, or the reason why there are none."""

from dataclasses import dataclass

import numpy as np

from ropewalk.errors import MethodError
from ropewalk.methods import Method
from ropewalk.plan import Plan
from ropewalk.rotary import FrequencyTable, RotarySpec

OURS = "run it in transformers with ropewalk: ropewalk.save, then ropewalk.from_pretrained"


@dataclass(frozen=True)
class Bucket:
    """One static table, and the longest text that it is for.

    Attributes:
        length: tokens.
        table: theta_i and the attention factor for texts of up to `length` tokens.
    """

    length: int
    table: FrequencyTable


def buckets(method: Method, spec: RotarySpec, target_length: int) -> list[Bucket]:
    """One bucket for a static table; for one that depends on the length, one for each table that it takes.

    Lengths of a method that depends on the length are the trained window, doubled until the target. Lengths that share
    a table are one bucket, and a bucket whose table is the model's own is left out: the model itself serves it.

    Args:
        method: filled for this model and target.
        target_length: tokens.

    Raises:
        MethodError: a plan that is more than one table for all layers, with the engine that can run it; or a table that
            is the model's own at every length, so that there is nothing to export.
    """
    lengths = [target_length]
    if method.length_dependent:
        length = spec.pretrained_length
        while length < target_length:
            lengths.insert(-1, length)
            length *= 2
    found: list[Bucket] = []
    for length in lengths:
        plan = method.plan(spec, length)
        reason = inexpressible(plan)
        if reason is not None:
            raise MethodError(f"{method} cannot be exported: {reason}; {OURS}")
        if plan.table == spec.table:
            continue
        if found and found[-1].table == plan.table:
            found.pop()
        found.append(Bucket(length, plan.table))
    if not found:
        raise MethodError(
            f"{method} leaves the model's own frequencies at {target_length} tokens, so there is nothing to export; "
            "serve the model itself, or give a longer target length"
        )
    return found


def inexpressible(plan: Plan) -> str | None:
    """Why a plan is more than one frequency table for all layers, or None."""
    band = plan.bands[0]
    if any(one.query.per_head or one.key.per_head for one in plan.bands):
        return "its positions differ by head (a key-dimension mask), which no engine's configuration can say"
    if band.key.retained:
        return "start tokens keep their own angles, which no engine's configuration can say"
    if len(plan.bands) > 1 or not (band.query.identity and band.key.identity):
        return "it changes positions, which no engine's configuration can say"
    if plan.log_n is not None or plan.logit_scale != 1:
        return "it scales logits (logit_scale, log_n), which no engine's configuration can say"
    if plan.table.per_layer:
        return "its table differs by layer, which no engine's configuration can say"
    if not (np.isfinite(plan.table.inv_freq.array).all() and (plan.table.inv_freq.array > 0).all()):
        return "some of its pairs do not turn at all, which factors cannot say"
    return None
