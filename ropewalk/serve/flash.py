"""Bands on CUDA: one FlashAttention call for each band, merged by their logsumexp.

Not run on a device yet: the formula is tested on a CPU with a dense stand-in for FlashAttention, which has its
arguments and its promises (tests/serve/test_flash.py).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ropewalk.attention.base import Backend, Inputs
from ropewalk.attention.merge import Merger
from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate

DTYPES = (torch.float16, torch.bfloat16)


class FlashBands(Backend):
    """Distance bands [lo, hi): the queries from lo on see the keys that are not among the last lo, causally aligned at
    the end, with a window of hi - lo.

    Args:
        call: `flash_attn_varlen_func` of vLLM.
    """

    name = "flash"
    tables: Tables

    def __init__(self, call: Callable[..., Any]) -> None:
        self.tables = Tables()
        self._call = call

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        if device.type != "cuda" or dtype not in DTYPES:
            return f"FlashAttention computes on CUDA in float16 and bfloat16, not on {device.type} in {dtype}"
        if grad or plan.bidirectional or any(band.region.chunk > 1 for band in plan.bands):
            return "FlashAttention is called for causal distance bands, and here are chunks, later tokens or gradients"
        return None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        batch, heads, new, _ = inputs.query.shape
        assert batch == 1 and inputs.positions is None, "an engine's requests come one by one, without gaps"
        total = inputs.key.shape[2]
        scale = plan.query_scale(inputs.key_positions()[-new:])
        query = inputs.query if scale is None else inputs.query * scale.to(inputs.query.dtype)[:, None]

        def turned(x: Tensor, to: PositionMap, first: int) -> Tensor:
            """Heads [H, T, D] of the tokens from `first` on, rotated; keys that differ by query head are repeated."""
            cos, sin = self.tables.get(to, plan, layer, range(first, first + x.shape[1]), x.device)
            if to.per_head and x.shape[0] != heads:
                x = x.repeat_interleave(heads // x.shape[0], 0)
            return rotate(x, cos, sin, spec)

        merger = Merger((1, heads, new, inputs.value.shape[-1]), query.device)
        for band in plan.bands:
            lo, hi = band.region.lo, band.region.hi
            first = max(0, lo - (total - new))  # earlier queries see no key of the band
            if first >= new:
                continue
            key = inputs.rotated[band.key][0] if inputs.rotated is not None else turned(inputs.key[0], band.key, 0)
            output, lse = self._flash(
                turned(query[0, :, first:], band.query, total - new + first),
                key[:, : total - lo],
                inputs.value[0, :, : total - lo],
                inputs.scaling * plan.logit_scale,
                -1 if hi is None else hi - lo - 1,
                inputs.softcap or 0.0,
            )
            merger.add(output[None], lse[None], slice(first, new))
        result = merger.output
        if inputs.sinks is not None:
            result = result * torch.sigmoid(merger.lse - inputs.sinks.float()[:, None])[..., None]
        return result.to(inputs.query.dtype), merger.lse

    def _flash(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int, softcap: float
    ) -> tuple[Tensor, Tensor]:
        """Heads first in and out, [H, T, D] and [H, T]."""
        value = value.repeat_interleave(key.shape[0] // value.shape[0], 0)
        q, k, v = (x.transpose(0, 1).contiguous() for x in (query, key, value))
        output, lse = self._call(
            q,
            k,
            v,
            max_seqlen_q=len(q),
            cu_seqlens_q=torch.tensor([0, len(q)], dtype=torch.int32, device=q.device),
            max_seqlen_k=len(k),
            cu_seqlens_k=torch.tensor([0, len(k)], dtype=torch.int32, device=k.device),
            softmax_scale=scaling,
            causal=True,
            window_size=[window, 0 if window >= 0 else -1],
            softcap=softcap,
            return_softmax_lse=True,
        )[:2]
        return output.transpose(0, 1), lse
