"""A position map over tiles of tokens: where a tile begins, and how many whole steps each token is from there.

With p(n) = p(n0) + step(n) * unit, n0 the first token of n's tile, the angle is theta p(n0) + theta unit step(n). The
second term has at most `TILE` values whatever n is, so cos and sin are kept for one token in `TILE` and for `TILE`
steps, in place of every token. Angles are built in float64.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.plan import PositionMap
from ropewalk.rotary import rotation

TILE = 64  # tokens
AT_ONCE = 2**16  # tokens whose positions are computed at once, in float64


@dataclass(frozen=True)
class Stepped:
    """What the kernel asks of a map that is the same for all heads.

    Attributes:
        base_cos, base_sin: of theta p(n0), float32 [tiles, pairs].
        turn_cos, turn_sin: of theta unit step, float32 [TILE, pairs].
        steps: of every token, uint8 [tokens, pairs]; None where they are 0 ... TILE - 1 in every tile.
    """

    base_cos: Tensor
    base_sin: Tensor
    turn_cos: Tensor
    turn_sin: Tensor
    steps: Tensor | None

    @property
    def tokens(self) -> int:
        """That it serves."""
        return len(self.base_cos) * TILE

    @property
    def turns(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """All of it, in the order that the kernel takes."""
        return self.base_cos, self.base_sin, self.turn_cos, self.turn_sin, self.steps

    @classmethod
    def of(cls, to: PositionMap, theta: Tensor, layer: int, tokens: int) -> "Stepped":
        """Of the tokens 0 ... `tokens` - 1, a multiple of TILE, on the device of theta, float64 [pairs]."""
        reason = unsteady(to)
        assert reason is None and tokens % TILE == 0, reason
        first = torch.arange(0, tokens, TILE, device=theta.device)
        scale = torch.tensor(to.scale.layer(layer)[0], device=theta.device)
        unit = (~scale.isinf()).double() if to.floor else 1 / scale
        even = not to.floor or bool(((scale == 1) | scale.isinf()).all())
        turn = torch.arange(TILE, dtype=torch.float64, device=theta.device)[:, None] * unit
        steps = None if even else _steps(to, layer, tokens, theta)
        base = to(first, layer)[0].expand(-1, len(theta))
        return cls(*rotation(base, theta), *rotation(turn.expand(-1, len(theta)), theta), steps)


def unsteady(to: PositionMap) -> str | None:
    """Why a map has no such tiles, or None when it has."""
    if to.modulus is not None:
        return "positions start anew"
    if to.cap is not None:
        return "positions are capped"
    return "start tokens have positions of their own" if to.retained else None


def _steps(to: PositionMap, layer: int, tokens: int, theta: Tensor) -> Tensor:
    steps = torch.empty(tokens, len(theta), dtype=torch.uint8, device=theta.device)
    for start in range(0, tokens, AT_ONCE):
        part = slice(start, min(start + AT_ONCE, tokens))
        positions = to(torch.arange(part.start, part.stop, device=theta.device), layer)[0].unflatten(0, (-1, TILE))
        steps[part] = (positions - positions[:, :1]).round().flatten(0, 1).to(torch.uint8)
    return steps
