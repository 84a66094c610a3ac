"""transformers' cache with keys that are rotated once: what takes the place of its plain layers.

A `DynamicCache` is a list of layers. Those that are exactly transformers' `DynamicLayer` give way to `RotatedLayer`
before a forward; any other kind of layer (static, sliding, quantised, offloaded, a user's own) stays, and hands
un-rotated keys over as it always did.

A `RotatedLayer` is a `DynamicLayer` until attention has seen its keys come by unchanged, with the plan and the padding
of every row. From then on it holds rotated keys, and what it returns from `update` is NaN of the right shape: only our
attention knows what it stands for, and whoever else takes it for keys finds out. Its `keys` are the un-rotated truth
for anyone who asks, and whoever asks may have changed them: a layer that was asked, or whose rows are no longer what
they were rotated for, is a plain `DynamicLayer` until it is reset.
"""

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from ropewalk.attention.rotated import Buffer, RotatedKeys
from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

GRADIENTS = "gradients were asked for"
MARK = "_ropewalk_layer"  # on what `update` returns: a weak reference to the layer


class RotatedLayer(DynamicLayer):
    """A dynamic cache layer that holds keys rotated by a plan's key maps.

    Args:
        plain: the layer whose contents are taken over, or None for an empty one.

    Attributes:
        rotated: the rotated keys, or None while the layer holds un-rotated ones.
        left_plain: why this layer stays un-rotated until it is reset, or None.
        met: attention has been given this layer's keys as `update` returned them.
    """

    def __init__(self, plain: DynamicLayer | None = None) -> None:
        self.rotated: RotatedKeys | None = None
        self.left_plain: str | None = None
        self.met = False
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self._value_buffer: Buffer | None = None
        super().__init__()
        if plain is not None and plain.is_initialized:
            self._keys, self._values = plain.keys, plain.values
            self.dtype, self.device, self.is_initialized = plain.dtype, plain.device, True

    def __copy__(self) -> "RotatedLayer":
        return copy.deepcopy(self)  # two layers may not write into one buffer

    @property
    def keys(self) -> Tensor | None:
        """Un-rotated keys [B, K, S, D]."""
        self.release("its keys were read")
        return self._keys

    @keys.setter
    def keys(self, keys: Tensor | None) -> None:
        self.release("its keys were replaced")
        self._keys = keys

    @property
    def values(self) -> Tensor | None:
        """Values [B, K, S, V]."""
        self.release("its values were read")
        return self._values

    @values.setter
    def values(self, values: Tensor | None) -> None:
        self.release("its values were replaced")
        self._values = values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add un-rotated keys and values; returns all keys, or NaN in their shape once they are rotated, and values."""
        if self.rotated is not None:
            if key_states.requires_grad or value_states.requires_grad:
                self.release(GRADIENTS)
            elif len(key_states) != len(self.rotated.origins):
                self.release("the batch changed")  # what comes now is refused as any cache refuses it
        if self.rotated is None:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            keys = keys.view_as(keys)
        else:
            assert self._value_buffer is not None
            self.rotated.append(key_states)
            self._value_buffer.append(value_states)
            batch, heads, _, width = key_states.shape
            keys = key_states.new_full((1, 1, 1, 1), torch.nan).expand(batch, heads, self.rotated.length, width)
            values = self._value_buffer.tensor
        setattr(keys, MARK, weakref.ref(self))
        return keys, values

    def rotate(
        self, new: int, plan: Plan, *, spec: RotarySpec, layer: int, origins: Sequence[int], tables: Tables
    ) -> RotatedKeys | None:
        """The keys rotated as a plan wants them, or None for a layer that stays un-rotated.

        Args:
            new: how many of the keys are queried now.
            plan: the plan of all rows.
            spec: the rotary embedding of the layer.
            layer: number of the attention layer.
            origins: slot of every row's first token; -1 for a row of padding, which a later call will tell.
            tables: gives cos and sin.
        """
        if self.rotated is not None:
            if self.rotated.belong_to(plan, spec, layer, origins):
                self.rotated.recall(new)  # a layer that shares these keys may come after they were trimmed
                return self.rotated
            self.release("the plan or the padding of cached rows changed")
        if self.left_plain is not None or -1 in origins:
            return None
        assert self._keys is not None and self._values is not None
        self.rotated = RotatedKeys(self._keys, new, plan, spec=spec, layer=layer, origins=origins, tables=tables)
        self._value_buffer = Buffer(self._values)
        self._keys = self._values = None
        return self.rotated

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


def layer_of(keys: Tensor) -> RotatedLayer | None:
    """The layer whose `update` returned this very tensor, or None for any other."""
    mark = getattr(keys, MARK, None)
    layer = None if mark is None else mark()
    if layer is not None:
        layer.met = True
    return layer


def prepare(cache: object) -> dict[str, None]:
    """Put layers that can hold rotated keys into a cache before a forward; returns why others were left, if any."""
    if not isinstance(cache, Cache):
        return {}
    if not isinstance(cache, DynamicCache) or cache.offloading:
        return {f"{'an offloaded' if cache.offloading else 'a'} {type(cache).__name__}": None}
    reasons: dict[str, None] = {}
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = RotatedLayer(layer)
        elif isinstance(layer, RotatedLayer):
            if layer.is_initialized and not layer.met:
                reasons["the model changes cached keys before attention sees them"] = None
        elif isinstance(layer, CacheLayerMixin):
            reasons[f"layers of type {type(layer).__name__}"] = None
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = RotatedLayer
    return reasons
