"""Models that normalise queries and keys after they rotated them: HunYuan, Llama 4 with its norm.

Such a norm N is taken out of the model and done here, after each band's own rotation: the logit of a band is
N_q(R(a(m)) q) . N_k(R(b(n)) k). Weights of a norm do not commute with a rotation: what is scored depends on the
positions a(m) and b(n) themselves, not on their difference alone, in the stock model as here. It is no dot product of
a query and a key that a backend could rotate, so that attention is dense, block by block, with torch alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ropewalk.attention.base import Inputs
from ropewalk.attention.tables import Tables
from ropewalk.models.override import Override
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate

NUMBERS = 2**25  # logits held at once
REASON = "the model normalises keys after it rotated them"


class LateNorm:
    """One norm module, which passes through what it is given while it is lifted; called, it normalises.

    Attributes:
        factor: what is passed through is multiplied with it, so that a probe tells whose norm this is.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.factor = 1.0
        self._override: Override | None = None

    def lift(self) -> None:
        """Take it out of the model."""
        if self._override is None:
            self._override = Override(self.module, "forward", self._pass)

    def restore(self) -> None:
        """Put it back."""
        if self._override is not None:
            self._override.restore()
            self._override = None

    def _pass(self, x: Tensor) -> Tensor:
        return x if self.factor == 1 else x * self.factor

    def __call__(self, x: Tensor) -> Tensor:
        forward: Callable[[Tensor], Tensor] = self.module.forward
        if self._override is not None:
            forward = self._override.original
        return forward(x)


@dataclass(frozen=True, eq=False)
class Norms:
    """What one attention module does to queries and keys after their rotation; None: nothing."""

    query: LateNorm | None
    key: LateNorm | None


def normed(norm: LateNorm | None, x: Tensor) -> Tensor:
    """x [B, H, T, D] under a norm, if there is one."""
    return x if norm is None else norm(x)


def norms_within(attention: nn.Module) -> dict[str, LateNorm]:
    """Norm modules of an attention module, by the name that it has for them."""
    found = {name: child for name, child in attention.named_children() if "Norm" in type(child).__name__}
    return {name: LateNorm(child) for name, child in found.items()}


def attend(inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int, norms: Norms, tables: Tables) -> Tensor:
    """Attention [B, H, T, V] under a plan, with norms between rotation and score; gradients reach everything."""
    heads, new, total = inputs.query.shape[1], inputs.query.shape[2], inputs.key.shape[2]
    n = inputs.key_positions()
    slots: Tensor | range = range(total) if inputs.positions is None else inputs.positions

    def turned(x: Tensor, to: PositionMap, norm: LateNorm | None) -> Tensor:
        places = slots[total - x.shape[2] :]
        cos, sin = tables.get(to, plan, layer, places, x.device)
        if to.per_head:
            x = x.repeat_interleave(heads // x.shape[1], 1)
        x = normed(norm, rotate(x, cos, sin, spec))
        return x.repeat_interleave(heads // x.shape[1], 1)

    bands = [
        (band.region, turned(inputs.query, band.query, norms.query), turned(inputs.key, band.key, norms.key))
        for band in plan.bands
    ]
    wide = torch.promote_types(inputs.query.dtype, torch.float32)
    value = inputs.value.repeat_interleave(heads // inputs.value.shape[1], 1).to(wide)
    gain = plan.query_scale(n[total - new :])
    outputs = []
    step = max(1, NUMBERS // (len(inputs.query) * heads * total))
    for first in range(0, new, step):
        rows = slice(first, min(first + step, new))
        m = n[total - new :][rows, None]
        logits = value.new_full((1, 1, 1, 1), -torch.inf)
        for region, query, key in bands:
            scores = (query[:, :, rows] @ key.mT).to(wide) * (inputs.scaling * plan.logit_scale)
            if gain is not None:
                scores = scores * gain[rows, None].to(wide)
            if inputs.softcap is not None:
                scores = inputs.softcap * torch.tanh(scores / inputs.softcap)
            logits = torch.where(region.contains(m, n[None, :]), scores, logits)
        if inputs.sinks is not None:
            sinks = inputs.sinks.to(wide)[None, :, None, None].expand(*logits.shape[:3], 1)
            logits = torch.cat((logits, sinks), -1)
        outputs.append(logits.softmax(-1)[..., :total] @ value)
    return torch.cat(outputs, 2).to(inputs.query.dtype)
