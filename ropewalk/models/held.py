"""A cache layer that holds keys rotated once: what the layers for transformers' dynamic and static caches share.

Such a layer is the layer that it stands for until attention has seen its keys come by unchanged, with the plan and the
padding of every row. From then on it holds rotated keys, and what it returns from `update` in their place is NaN of the
right shape: only our attention knows what it stands for, and whoever else takes it for keys finds out. Its `keys` are
the un-rotated truth for anyone who asks, and whoever asks may have changed them: a layer that was asked, or whose rows
are no longer what they were rotated for, holds un-rotated keys until it is reset.
"""

import weakref
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from ropewalk.attention.rotated import RotatedKeys
from ropewalk.attention.tables import Tables
from ropewalk.errors import ModelError
from ropewalk.models import graph
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

GRADIENTS = "gradients were asked for"
MARK = "_ropewalk_layer"  # on what `update` returns: a weak reference to the layer


class HoldingLayer(CacheLayerMixin):
    """A cache layer that holds keys rotated by a plan's key maps.

    Attributes:
        rotated: the rotated keys, or None while the layer holds un-rotated ones.
        left_plain: why this layer stays un-rotated until it is reset, or None.
        met: attention has been given this layer's keys as `update` returned them.
        number: by which a graph of torch.compile knows this layer, int64 of no dimensions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rotated: RotatedKeys | None = None
        self.left_plain: str | None = None
        self.met = False
        self._keys: Tensor | None = None
        self._values: Tensor | None = None
        self.__setstate__({})
        super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over, a copy's or a saved one's; the number is this layer's own."""
        self.__dict__.update(state)
        self.number = torch.tensor(graph.number(self))  # a tensor, so that another cache is not another graph

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
        """Add un-rotated keys and values; returns all keys, or NaN in their shape once they are rotated, and values.

        In a graph of torch.compile, the layer's number stands for what it holds rotated.
        """
        if torch.compiler.is_compiling():
            if self.rotated is None:
                return super().update(key_states, value_states, *args, **kwargs)
            graph.refuse_gradients(key_states, value_states)
            return self._append_in_graph(self.rotated, key_states, value_states)
        if self.rotated is not None:
            if key_states.requires_grad or value_states.requires_grad:
                self.release(GRADIENTS)
            elif len(key_states) != len(self.rotated.origins):
                self.release("the batch changed")  # what comes now is refused as any cache refuses it
        if self.rotated is None:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            keys = keys.view_as(keys)
        else:
            values = self.append(self.rotated, key_states, value_states)
            return self.stand_in(key_states, values.shape[2]), values
        setattr(keys, MARK, weakref.ref(self))
        return keys, values

    def add(self, held: int, keys: Tensor, values: Tensor | None) -> None:
        """Entry from a graph: add keys to the tokens that are held, and values where the graph does not keep them."""
        if self.rotated is None or self.rotated.length != held or len(keys) != len(self.rotated.origins):
            raise ModelError(graph.CHANGED)
        if values is None:
            self.rotated.append(keys)
        else:
            self.append(self.rotated, keys, values)

    def stand_in(self, like: Tensor, length: int) -> Tensor:
        """What `update` returns in place of so many rotated keys; `like` has the batch, the width and the dtype."""
        assert self.rotated is not None
        shape = (len(like), self.rotated.whole.room.shape[1], length, like.shape[-1])
        keys = like.new_full((1, 1, 1, 1), torch.nan).expand(shape)
        setattr(keys, MARK, weakref.ref(self))
        return keys

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
        self.rotated = self._turned(new, plan, spec=spec, layer=layer, origins=origins, tables=tables)
        return self.rotated

    @abstractmethod
    def release(self, reason: str) -> None:
        """Go back to un-rotated keys, and stay there until `reset`; does nothing to a layer that holds them."""

    @abstractmethod
    def append(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> Tensor:
        """Add keys to those that are rotated, and values; returns all values that `update` returns."""

    @abstractmethod
    def _append_in_graph(self, rotated: RotatedKeys, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same in operations that a graph can hold; returns what `update` returns there."""

    @abstractmethod
    def _turned(self, new: int, plan: Plan, **how: Any) -> RotatedKeys:
        """Take the un-rotated keys of the layer and rotate them."""


def layer_of(keys: Tensor) -> Any:
    """The layer of ours whose `update` returned this very tensor, or None for any other."""
    mark = getattr(keys, MARK, None)
    layer = None if mark is None else mark()
    if layer is not None:
        layer.met = True
    return layer
