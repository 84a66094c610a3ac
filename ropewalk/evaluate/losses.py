"""Means of next-token losses over stretches of a document."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mean_loss(losses: Tensor, scored: Sequence[bool], first: int = 0, last: int | None = None) -> float | None:
    """Mean loss, nats per token, of the scored tokens at positions first..last - 1; None where there are none.

    Args:
        losses: [T - 1] float32, losses[t] belongs to token t + 1 (see `ropewalk.evaluate.prefill`).
        scored: [T], whether a token's loss counts.
    """
    begin, end = max(1, first), len(scored) if last is None else min(last, len(scored))
    if begin >= end:
        return None
    counted = losses[begin - 1 : end - 1][torch.tensor(scored[begin:end], dtype=torch.bool)]
    return counted.double().mean().item() if len(counted) else None


def loss_by_position(losses: Tensor, scored: Sequence[bool], *, width: int) -> list[tuple[int, int, float]]:
    """(first, last, mean loss) of consecutive stretches of `width` tokens; those without scored tokens are left out."""
    stretches = []
    for first in range(0, len(scored), width):
        last = min(first + width, len(scored))
        loss = mean_loss(losses, scored, first, last)
        if loss is not None:
            stretches.append((first, last, loss))
    return stretches
