"""The dense oracle: every logit in one matrix, in float64. Time and memory grow with the square of the length."""

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate


class Reference(Backend):
    """Dense attention in float64: one logit matrix per band, the band's region picks which one counts."""

    name = "reference"

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        return "the device has no float64" if device.type == "mps" else None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        heads, new = inputs.query.shape[1:3]
        repeats = heads // inputs.key.shape[1]
        query = inputs.query.double()
        key = inputs.key.double().repeat_interleave(repeats, 1)
        value = inputs.value.double().repeat_interleave(repeats, 1)
        n = inputs.key_positions()
        m = n[-new:]

        query_scale = plan.query_scale(m)
        if query_scale is not None:
            query = query * query_scale[:, None]
        logits = torch.full((*query.shape[:3], len(n)), -torch.inf, dtype=torch.float64, device=query.device)
        for band in plan.bands:
            turned_query = self._turn(query, m, band.query, plan, spec, layer)
            turned_key = self._turn(key, n, band.key, plan, spec, layer)
            scores = turned_query @ turned_key.mT * (inputs.scaling * plan.logit_scale)
            if inputs.softcap is not None:
                scores = inputs.softcap * torch.tanh(scores / inputs.softcap)
            logits = torch.where(band.region.contains(m[:, None], n[None, :]), scores, logits)

        lse = logits.logsumexp(-1)
        total = lse if inputs.sinks is None else torch.logaddexp(lse, inputs.sinks.double()[:, None])
        sees_none = torch.isneginf(logits).all(-1, keepdim=True)
        weights = torch.exp(logits - total[..., None].masked_fill(sees_none, 0.0))
        return (weights @ value).to(inputs.query.dtype), lse

    @staticmethod
    def _turn(x: Tensor, positions: Tensor, to: PositionMap, plan: Plan, spec: RotarySpec, layer: int) -> Tensor:
        angles = to(positions, layer) * plan.table.theta(layer).to(x.device)  # [heads or 1, N, pairs]
        scaling = plan.table.attention_scaling
        return rotate(x, angles.cos() * scaling, angles.sin() * scaling, spec)


BACKENDS.register("reference")(Reference())
