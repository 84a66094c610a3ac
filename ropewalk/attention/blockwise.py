"""Attention in blocks of queries, with torch alone: any plan, memory linear in the length, CPU and GPU.

Where torch has a fused CPU kernel that returns the logsumexp, each block is cut into pieces that the kernel can do
without a mask, forward and backward: rectangles that every query sees, and triangles at the edges of a band. Elsewhere
(GPU, float64, soft-capped logits, positions with gaps) each block is one dense softmax over all bands; for gradients
its weights are kept, and memory grows with the square of the length.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ropewalk.attention import gradients
from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.attention.fused import Fused
from ropewalk.attention.tables import Tables
from ropewalk.attention.turning import Turned, turned
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

BLOCK = 1024  # queries per block of the fused path; with a window of 1,024, 512 does as well and 2,048 needs masks
SMALLEST = 128  # queries per block below which calls cost more than masks
DENSE_NUMBERS = 2**26  # logits held at once by the dense path, 256 MiB in float32


def block_size(plan: Plan) -> int:
    """Queries per block: no more than the narrowest band is wide, so that its edges need no mask."""
    widths = [b.region.hi - b.region.lo for b in plan.bands if b.region.hi is not None and b.region.chunk == 1]
    return max(min([BLOCK, *widths]), min(BLOCK, SMALLEST))


class Blockwise(Backend):
    """Blocks of queries; fused pieces where the CPU kernel can, one dense softmax per block elsewhere."""

    name = "blockwise"
    tables: Tables

    def __init__(self) -> None:
        self.tables = Tables()

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        return None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        if _fused(inputs):
            output, lse = self._attend_fused(inputs, plan, spec, layer)
        else:
            output, lse = self._attend_dense(inputs, plan, spec, layer)
        if inputs.sinks is not None:
            output = output * torch.sigmoid(lse - inputs.sinks.float()[:, None])[..., None]
        return output.to(inputs.query.dtype), lse

    def _attend_fused(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        def turn(query: Tensor, key: Tensor) -> tuple[Turned, Turned]:
            return turned(replace(inputs, query=query, key=key), plan, spec, layer, self.tables)

        new, total = inputs.query.shape[2], inputs.key.shape[2]
        kernel = Fused(plan, new, total, inputs.scaling * plan.logit_scale, block_size(plan))
        value = inputs.value.to(inputs.query.dtype)  # they differ under autocast
        return gradients.attend(kernel, turn, inputs.query, inputs.key, value)

    def _attend_dense(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        batch, heads, new = inputs.query.shape[:3]
        n = inputs.key_positions()
        m = n[-new:]
        wide = torch.promote_types(inputs.query.dtype, torch.float32)
        repeats = heads // inputs.key.shape[1]
        value = inputs.value.repeat_interleave(repeats, 1).to(wide)
        queries, keys = turned(inputs, plan, spec, layer, self.tables)
        scaling = inputs.scaling * plan.logit_scale
        first = 2.0 ** math.floor(math.log2(scaling))  # exact in any dtype, and keeps products within float16
        bands = []
        for band in plan.bands:
            key = keys[band.key]
            bands.append((band.region, queries[band.query] * first, key.repeat_interleave(heads // key.shape[1], 1)))
        outputs, lses = [], []
        step = max(1, DENSE_NUMBERS // (batch * heads * len(n)))
        for a in range(0, new, step):
            rows = slice(a, min(a + step, new))
            logits: Tensor | None = None
            seen = torch.zeros(1, dtype=torch.bool, device=n.device)
            for region, q, key in bands:
                scores = (q[:, :, rows] @ key.mT).to(wide) * (scaling / first)
                scores = torch.nn.functional.pad(scores, (len(n) - key.shape[2], 0))  # keys that no query sees there
                inside = region.contains(m[rows, None], n[None, :])
                seen = seen | inside
                logits = scores if logits is None else torch.where(inside, scores, logits)
            assert logits is not None
            if inputs.softcap is not None:
                logits = inputs.softcap * torch.tanh(logits / inputs.softcap)
            logits = logits.masked_fill(~seen, -torch.inf)
            lses.append(logits.logsumexp(-1))
            outputs.append(logits.softmax(-1) @ value)
        return torch.cat(outputs, 2), torch.cat(lses, 2)


def _fused(inputs: Inputs) -> bool:
    query, value = inputs.query, inputs.value
    return (
        query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and value.shape[3] <= query.shape[3]
        and inputs.positions is None
        and inputs.softcap is None
    )


BACKENDS.register("blockwise")(Blockwise())
