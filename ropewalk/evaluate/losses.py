"""Means of next-token losses over stretches of a document, and the units that they are read in."""

import math
import sys
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


def block_losses(losses: Tensor, *, width: int) -> tuple[float, ...]:
    """Mean losses of consecutive blocks of about `width` tokens, whose own mean is exactly that of all tokens.

    Blocks differ in size by one token at most; each mean is multiplied by its block's size over the mean size.

    Args:
        losses: [T], nats, T of 1 or more.
    """
    blocks = losses.double().tensor_split(max(1, round(len(losses) / width)))
    return tuple(block.sum().item() * len(blocks) / len(losses) for block in blocks)


def perplexity(loss: float) -> float | None:
    """exp(loss) of a loss in nats per token; None where no float holds it."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else None


def bits_per_byte(nats: float, size: int) -> float:
    """Loss per byte of text, which compares across tokenizers as loss per token does not.

    Args:
        nats: loss of all tokens of a text together.
        size: UTF-8 bytes of that text.
    """
    return nats / math.log(2) / size
