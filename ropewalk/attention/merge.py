"""Merging pieces of attention that saw disjoint sets of keys, by their logsumexp, in float32.

A row that saw no key must weigh nothing. Libraries disagree on its logsumexp (0 in torch on the CPU, +inf in
FlashAttention-2, -inf in FlashAttention-3, another base in FlashInfer), so which rows a piece has is said by structure,
never read off the value.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Merger:
    """The running result over pieces, for queries [B, H, T] and values of width V.

    Attributes:
        output: float32 [B, H, T, V].
        lse: natural logsumexp, float32 [B, H, T]; -inf where nothing was seen yet.
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self.output = torch.zeros(shape, dtype=torch.float32, device=device)
        self.lse = torch.full(shape[:3], -torch.inf, dtype=torch.float32, device=device)

    def add(self, output: Tensor, lse: Tensor, rows: slice = slice(None), sees: Tensor | None = None) -> None:
        """Merge in a piece that saw other keys.

        Args:
            output: [B, H, t, V], any float dtype.
            lse: natural logsumexp, [B, H, t].
            rows: the queries that the piece is for.
            sees: bool [t], False where the query saw no key of the piece; None when every query saw one.
        """
        have, piece = self.lse[:, :, rows], lse.float()
        if sees is not None:
            piece = piece.masked_fill(~sees, -torch.inf)
        total = torch.logaddexp(have, piece)
        base = total.masked_fill(torch.isneginf(total), 0.0)
        piece_weight = (piece - base).exp()[..., None]
        if sees is not None:  # an unseen row may hold anything, NaN included
            output = output.masked_fill(~sees[:, None], 0.0)
        self.output[:, :, rows].mul_((have - base).exp()[..., None]).add_(output * piece_weight)
        self.lse[:, :, rows] = total


def merge(pieces: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The same for all pieces at once, differentiable by autograd in outputs and logsumexps.

    Args:
        pieces: one or more of output [B, H, T, V], natural logsumexp [B, H, T], and whether a query sees a key of the
            piece, bool [B or 1, 1, T]. Pieces see different keys.

    Returns: output and logsumexp, float32; 0 and -inf for a query that sees none.
    """
    lse = torch.stack([lse.float().masked_fill(~sees, -torch.inf) for _, lse, sees in pieces])
    blind = torch.isneginf(lse).all(0)
    total = lse.masked_fill(blind, 0.0).logsumexp(0)  # of -inf alone there is no gradient
    output = torch.zeros((), device=lse.device)
    for (found, _, sees), own in zip(pieces, lse, strict=True):
        weight = (own - total).masked_fill(blind, -torch.inf).exp()
        output = output + found.float().masked_fill(~sees[..., None], 0.0) * weight[..., None]
    return output, total.masked_fill(blind, -torch.inf)
