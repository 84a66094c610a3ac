"""Letting transformers' caches hold keys that are rotated once.

A cache is a list of layers. Those that are exactly transformers' `DynamicLayer`, `DynamicSlidingWindowLayer` or
`StaticLayer` give way to layers that can hold rotated keys before a forward; any other kind (static and sliding,
quantised, offloaded, a user's own) stays, and hands un-rotated keys over as it always did.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from ropewalk.attention.rotated import Buffer, RotatedKeys
from ropewalk.models import graph
from ropewalk.models.held import HoldingLayer
from ropewalk.models.sliding_cache import RotatedSlidingLayer
from ropewalk.models.static_cache import RotatedStaticLayer
from ropewalk.plan import Plan


class RotatedLayer(HoldingLayer, DynamicLayer):
    """A dynamic cache layer that holds keys rotated by a plan's key maps.

    Args:
        plain: the layer whose contents are taken over, or None for an empty one.
    """

    def __init__(self, plain: DynamicLayer | None = None) -> None:
        self._value_buffer: Buffer | None = None
        super().__init__()
        if plain is not None and plain.is_initialized:
            self._keys, self._values = plain.keys, plain.values
            self.dtype, self.device, self.is_initialized = plain.dtype, plain.device, True

    def __copy__(self) -> "RotatedLayer":
        return copy.deepcopy(self)  # two layers may not write into one buffer

    def append(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> Tensor:
        assert self._value_buffer is not None
        rotated.append(keys)
        self._value_buffer.append(values)
        return self.held_values

    @property
    def held_values(self) -> Tensor:
        """The values beside rotated keys."""
        assert self._value_buffer is not None
        return self._value_buffer.tensor

    def _append_in_graph(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, new, width = keys.shape
        held = torch.full((), rotated.length)
        number = graph.append(self.number, held, keys, values)
        length = rotated.length + new
        return number.expand(batch, heads, length, width), number.expand(batch, heads, length, values.shape[3])

    def _turned(self, new: int, plan: Plan, **how: Any) -> RotatedKeys:
        assert self._keys is not None and self._values is not None
        rotated = RotatedKeys(self._keys, new, plan, **how)
        self._value_buffer = Buffer(self._values)
        self._keys = self._values = None
        return rotated

    def release(self, reason: str) -> None:
        """Go back to un-rotated keys, and stay there until `reset`; does nothing to a layer that holds them."""
        if self.rotated is None:
            return
        assert self._value_buffer is not None
        self._keys, self._values = self.rotated.unrotated(), self._value_buffer.tensor
        self.rotated = self._value_buffer = None
        self.left_plain = reason

    def get_seq_length(self) -> int:
        """Tokens in the layer."""
        return super().get_seq_length() if self.rotated is None else self.rotated.length

    def reset(self) -> None:
        """Forget everything."""
        self.rotated = self._value_buffer = self.left_plain = None
        self._keys = self._values = None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last -tokens_to_remove tokens."""
        if self.rotated is None or tokens_to_remove >= 0:
            super().crop(tokens_to_remove)
        elif -tokens_to_remove >= self.rotated.length:
            self.reset()
        else:
            assert self._value_buffer is not None
            self.rotated.crop(-tokens_to_remove)
            self._value_buffer.crop(-tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows for beam search."""
        if self.rotated is None:
            super().reorder_cache(beam_idx)
        else:
            self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        if self.rotated is None:
            super().batch_repeat_interleave(repeats)
        else:
            self._select(torch.arange(len(self.rotated.origins)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        if self.rotated is None:
            super().batch_select_indices(indices)
        else:
            self._select(torch.arange(len(self.rotated.origins))[indices.cpu()])

    def _select(self, rows: Tensor) -> None:
        assert self.rotated is not None and self._value_buffer is not None
        self.rotated.select(rows)
        self._value_buffer.select(rows)


def prepare(cache: object) -> dict[str, None]:
    """Put layers that can hold rotated keys into a cache before a forward; returns why others were left, if any."""
    if not isinstance(cache, Cache):
        return {}
    if not isinstance(cache, DynamicCache | StaticCache) or cache.offloading:
        return {f"{'an offloaded' if cache.offloading else 'a'} {type(cache).__name__}": None}
    reasons: dict[str, None] = {}
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = RotatedLayer(layer)
        elif type(layer) is StaticLayer:
            cache.layers[i] = RotatedStaticLayer(layer)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[i] = RotatedSlidingLayer(layer)
        elif isinstance(layer, HoldingLayer | RotatedSlidingLayer):
            if layer.is_initialized and not layer.met:
                reasons["the model changes cached keys before attention sees them"] = None
        elif isinstance(layer, CacheLayerMixin):
            reasons[f"layers of type {type(layer).__name__}"] = None
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = RotatedLayer
    return reasons
