"""transformers' static cache with keys that are rotated once: memory of a fixed size, written to in place.

The rotated keys take the place of the un-rotated ones, in the same memory; what the local band asks for comes on top.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import StaticLayer

from ropewalk.attention.rotated import RotatedKeys
from ropewalk.models import graph
from ropewalk.models.held import HoldingLayer
from ropewalk.plan import Plan


class RotatedStaticLayer(HoldingLayer, StaticLayer):
    """A static cache layer that holds keys rotated by a plan's key maps.

    Args:
        plain: the layer whose memory and contents are taken over.
    """

    def __init__(self, plain: StaticLayer) -> None:
        super().__init__(plain.max_cache_len)
        state = dict(vars(plain))
        self._keys, self._values = state.pop("keys"), state.pop("values")
        self.__dict__.update(state)

    def __copy__(self) -> "RotatedStaticLayer":
        return copy.deepcopy(self)  # two layers may not write into one buffer

    def append(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> Tensor:
        assert self._values is not None
        slots = torch.arange(keys.shape[2], device=values.device) + self.cumulative_length
        self._values[:, :, slots] = values  # raises where the cache is full, as the stock layer does
        self.cumulative_length.add_(keys.shape[2])
        rotated.append(keys)
        return self._values

    def _append_in_graph(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self._values is not None
        number = graph.append(self.number, self.cumulative_length.clone(), keys, None)
        slots = torch.arange(keys.shape[2], device=values.device) + self.cumulative_length
        self._values.index_copy_(2, slots, values)
        self.cumulative_length.add_(keys.shape[2])
        batch, heads, _, width = keys.shape
        return number.expand(batch, heads, self.max_cache_len, width), self._values

    def _turned(self, new: int, plan: Plan, **how: Any) -> RotatedKeys:
        assert self._keys is not None
        return RotatedKeys(self._keys[:, :, : int(self.cumulative_length)], new, plan, **how, room=self._keys)

    def release(self, reason: str) -> None:
        """Go back to un-rotated keys, and stay there until `reset`; does nothing to a layer that holds them."""
        if self.rotated is None:
            return
        assert self._keys is not None
        self._keys[:, :, : self.rotated.length] = self.rotated.unrotated()
        self.rotated = None
        self.left_plain = reason

    def reset(self) -> None:
        """Forget everything, and keep the memory."""
        self.rotated = self.left_plain = None
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows for beam search."""
        if self.rotated is None:
            super().reorder_cache(beam_idx)
            return
        assert self._values is not None
        self.rotated.select(beam_idx)
        self._keys = self.rotated.whole.room
        self._values = self._values.index_select(0, beam_idx.to(self._values.device))
