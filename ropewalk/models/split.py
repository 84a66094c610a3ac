"""Which tokens of a text each of several processes has, and how their parts are put together again."""

from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from ropewalk.errors import ModelError


class Split:
    """A text in 2R chunks for R processes: the r-th has chunks r and 2R - 1 - r, so that each sees as many keys.

    Attributes:
        chunks: the tokens of this process.
        own: the same, int64.
        last_rank: who has the last token.
    """

    last_rank = 0

    def __init__(self, length: int, rank: int, ranks: int, group: dist.ProcessGroup | None = None) -> None:
        if length < 2 * ranks:
            raise ModelError(f"{length} tokens cannot be divided over {ranks} processes; give {2 * ranks} or more")
        ends = [i * length // (2 * ranks) for i in range(2 * ranks + 1)]
        pieces = [range(*pair) for pair in pairwise(ends)]
        self.length = length
        self.group = group
        self.everyone = [(pieces[r], pieces[-1 - r]) for r in range(ranks)]
        self.chunks = self.everyone[rank]
        self.own = torch.cat([torch.arange(chunk.start, chunk.stop) for chunk in self.chunks])

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """The parts of all processes along `dim`, in the order of the text; no gradients."""
        if part.shape[dim] != len(self.own):
            raise ModelError(f"a part of {part.shape[dim]} tokens cannot be gathered: this process has {len(self.own)}")
        before, after = part.shape[:dim], part.shape[dim + 1 :]
        longest = max(sum(map(len, chunks)) for chunks in self.everyone)  # collectives want one shape
        padded = part.new_zeros(*before, longest, *after)
        padded.narrow(dim, 0, part.shape[dim]).copy_(part.detach())
        parts = [torch.empty_like(padded) for _ in self.everyone]
        dist.all_gather(parts, padded, group=self.group)
        whole = part.new_empty(*before, self.length, *after)
        for found, chunks in zip(parts, self.everyone, strict=True):
            begin = 0
            for chunk in chunks:
                whole.narrow(dim, chunk.start, len(chunk)).copy_(found.narrow(dim, begin, len(chunk)))
                begin += len(chunk)
        return whole
