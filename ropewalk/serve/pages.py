"""The keys and values of one layer in an engine's pages."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.attention.rotated import reaches, unsupported
from ropewalk.plan import Plan, PositionMap


def key_maps(plan: Plan, *, rotated: bool) -> tuple[PositionMap, ...]:
    """The maps whose copies of a key a page holds; none: it holds the un-rotated key alone."""
    return tuple(reaches(plan)) if rotated and unsupported(plan) is None else ()


def runs(blocks: list[int]) -> list[tuple[int, int]]:
    """Block numbers as runs [first, last) of neighbours, in order: [4, 5, 9] -> [(4, 6), (9, 10)]."""
    found: list[tuple[int, int]] = []
    for _, group in itertools.groupby(enumerate(blocks), lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        found.append((numbers[0], numbers[-1] + 1))
    return found


@dataclass(frozen=True)
class Pages:
    """Pages [blocks, K, block, (copies + 1) * D] of any strides: the copies of each key, then its value.

    Attributes:
        storage: the tensor, written in place.
        width: D.
    """

    storage: Tensor
    width: int

    def write(self, slots: Tensor, parts: list[Tensor]) -> None:
        """Put the parts of some tokens, each [T, K, D], into their slots, int64 [T] (block * block size + offset)."""
        size = self.storage.shape[2]
        content = torch.cat(parts, -1)
        self.storage[slots // size, :, slots % size, : content.shape[-1]] = content.to(self.storage.dtype)

    def read(self, blocks: list[int], length: int) -> Tensor:
        """The first `length` tokens of a request, [K, length, content]; a view where its blocks are neighbours."""
        by_head = self.storage.transpose(0, 1)
        parts = [by_head[:, first:last] for first, last in runs(blocks)]
        tokens = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return tokens.flatten(1, 2)[:, :length]
