"""Attention of an engine's step: requests of any lengths at once, each as it is alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ropewalk.attention.base import Backend, Inputs
from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate
from ropewalk.serve.pages import Pages


@dataclass(frozen=True)
class Batch:
    """Which tokens a step reads, and where the keys of each request lie.

    Attributes:
        starts: of each request's new tokens among all of the step, and the end: R + 1 numbers.
        lengths: tokens of each request, the new ones included.
        blocks: of each request, in order.
        slots: where each new token's key goes, int64 [T].
        positions: of each new token in its request, int64 [T].
    """

    starts: Sequence[int]
    lengths: Sequence[int]
    blocks: Sequence[list[int]]
    slots: Tensor
    positions: Tensor

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor, table: Tensor, slots: Tensor, size: int) -> "Batch":
        """From what engines hand over.

        Args:
            starts: int [R + 1].
            lengths: int [R].
            table: block numbers, int [R, any].
            slots: int [T or more].
            size: tokens per block.
        """
        begin, total = starts.tolist(), lengths.tolist()
        rows = [row[: -(-length // size)].tolist() for row, length in zip(table, total, strict=True)]
        news = [stop - start for start, stop in pairwise(begin)]
        spans = [torch.arange(length - new, length) for length, new in zip(total, news, strict=True)]
        return cls(begin, total, rows, slots[: begin[-1]].long(), torch.cat(spans).to(slots.device))


@dataclass(frozen=True)
class Layer:
    """One attention layer as the engine sees it.

    Attributes:
        number: its index in the model.
        backend: with `tables` where `maps` are given.
        plan: for the query heads that this process has.
        maps: the key maps whose copies pages hold; none: un-rotated keys.
        scaling: of the logits.
        softcap: or None.
        sinks: [H], or None.
    """

    number: int
    backend: Backend
    plan: Plan
    spec: RotarySpec
    maps: tuple[PositionMap, ...]
    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None


def attend(
    batch: Batch, layer: Layer, query: Tensor, key: Tensor, value: Tensor, pages: Pages, tables: Tables
) -> Tensor:
    """Write the new keys and values into pages, and attend.

    Args:
        query: un-rotated [T, H, D]; key: un-rotated [T, K, D]; value: [T, K, D].

    Returns: [T, H, D].
    """
    copies = [_turned(key, batch, layer, to, tables) for to in layer.maps] or [key]
    slots = [*copies, *[copies[0]] * (pages.storage.shape[-1] // pages.width - 1 - len(copies)), value]
    pages.write(batch.slots, slots)
    output = torch.empty_like(query)
    for (start, stop), length, blocks in zip(pairwise(batch.starts), batch.lengths, batch.blocks, strict=True):
        held = pages.read(blocks, length)[None].unflatten(-1, (-1, pages.width))
        inputs = Inputs(
            query[None, start:stop].transpose(1, 2),
            held[..., 0, :],
            held[..., -1, :],
            layer.scaling,
            softcap=layer.softcap,
            sinks=layer.sinks,
            rotated={to: held[..., index, :] for index, to in enumerate(layer.maps)} or None,
        )
        result, _ = layer.backend.attend(inputs, layer.plan, layer.spec, layer.number)
        output[start:stop] = result[0].transpose(0, 1)
    return output


def _turned(key: Tensor, batch: Batch, layer: Layer, to: PositionMap, tables: Tables) -> Tensor:
    """Keys [T, K, D] rotated by a key map, each at its own position."""
    cos, sin = tables.get(to, layer.plan, layer.number, range(max(batch.lengths)), key.device)
    return rotate(key.transpose(0, 1), cos[:, batch.positions], sin[:, batch.positions], layer.spec).transpose(0, 1)
