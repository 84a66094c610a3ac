"""transformers' sliding-window cache layer with keys that are rotated once, by the model's own table.

A layer that slides stays as it is under every method, so that its keys are rotated to their places in the text, as the
stock model caches them; only distances count, and padding before them does not. What such a layer does with keys (the
last window, the past that a crop goes back to, rows) is the stock layer's business throughout.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from ropewalk.attention.tables import Tables
from ropewalk.errors import ModelError
from ropewalk.models import graph
from ropewalk.models.held import GRADIENTS, MARK
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate

PLAIN = PositionMap()
TURNED = "_ropewalk_turned"  # on what `update` returns: how these keys are rotated, or None


@dataclass(frozen=True)
class Turning:
    """How the keys of a layer are rotated: by the table of a plan, position by position."""

    plan: Plan
    spec: RotarySpec
    tables: Tables

    def turn(self, keys: Tensor, first: int, *, back: bool = False) -> Tensor:
        """Rotate keys [B, K, T, D] of the places from `first` on, or turn them back."""
        places = range(first, first + keys.shape[2])
        if not back:
            return self.tables.turn(keys, PLAIN, self.plan, 0, places, self.spec)
        cos, sin = self.tables.get(PLAIN, self.plan, 0, places, keys.device)
        square = self.plan.table.attention_scaling**2  # cos and sin carry the attention scaling
        return rotate(keys, cos / square, -sin / square, self.spec)


class Slid:
    """Keys of a sliding layer as they came from its cache, rotated, and where they stand."""

    def __init__(self, keys: Tensor, first: int) -> None:
        self.keys = keys
        self.first = first

    def part(self, rows: "slice | Tensor", slots: slice) -> dict[PositionMap, Tensor]:
        """For some rows, the keys of these slots, [rows, K, n, D]."""
        return {PLAIN: self.keys[rows][:, :, slots]}

    def positions(self, slots: slice) -> Tensor:
        """Where the keys of these slots stand, int64 [n]."""
        return torch.arange(self.first + slots.start, self.first + slots.stop, device=self.keys.device)


class RotatedSlidingLayer(DynamicSlidingWindowLayer):
    """A sliding-window cache layer that holds its keys rotated.

    Args:
        plain: the layer whose contents are taken over.

    Attributes:
        turning: how the keys are rotated, None while they are not.
        left_plain: why this layer stays un-rotated until it is reset, or None.
        met: attention has been given this layer's keys as `update` returned them.
        number: by which a graph of torch.compile knows this layer, int64 of no dimensions.
    """

    def __init__(self, plain: DynamicSlidingWindowLayer) -> None:
        super().__init__(plain.sliding_window)
        self.keys: Tensor
        self.turning: Turning | None = None
        self.left_plain: str | None = None
        self.met = False
        self._latest: tuple[Tensor, Tensor] | None = None
        self.__setstate__(dict(vars(plain)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state over, a copy's or a saved one's; the number is this layer's own."""
        self.__dict__.update(state)
        self.number = torch.tensor(graph.number(self))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add un-rotated keys and values; returns all keys that the queries see, rotated if they are, and values.

        In a graph of torch.compile, the layer's number stands for both.
        """
        if torch.compiler.is_compiling() and self.turning is not None:
            graph.refuse_gradients(key_states, value_states)
            return self._update_in_graph(key_states, value_states)
        if self.turning is not None and (key_states.requires_grad or value_states.requires_grad):
            self.release(GRADIENTS)
        if self.turning is not None:
            key_states = self.turning.turn(key_states, self.cumulative_length)
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        if torch.compiler.is_compiling():
            return keys, values
        return self._marked(keys), values

    def _marked(self, keys: Tensor) -> Tensor:
        keys = keys.view_as(keys)
        setattr(keys, MARK, weakref.ref(self))
        setattr(keys, TURNED, self.turning)
        return keys

    def _update_in_graph(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, new, width = keys.shape
        number = graph.append(self.number, torch.full((), self.cumulative_length), keys, values)
        seen = min(self.cumulative_length, self.sliding_window - 1) + new
        return number.expand(batch, heads, seen, width), number.expand(batch, heads, seen, values.shape[3])

    def add(self, held: int, keys: Tensor, values: Tensor | None) -> None:
        """Entry from a graph: `update`, whose results `stand_in` and `held_values` give."""
        if self.cumulative_length != held or self.turning is None or values is None:
            raise ModelError(graph.CHANGED)
        self._latest = self.update(keys, values)

    def stand_in(self, like: Tensor, length: int) -> Tensor:
        """What the last `update` from a graph returned as keys."""
        assert self._latest is not None
        return self._marked(self._latest[0])

    @property
    def held_values(self) -> Tensor:
        """What the last `update` from a graph returned as values."""
        assert self._latest is not None
        return self._latest[1]

    def slid(self, keys: Tensor, turning: Turning) -> Slid | None:
        """Keys that `update` returned, rotated; None where they are not, which those that come after them will be."""
        if getattr(keys, TURNED) is not None:
            return Slid(keys, self.cumulative_length - keys.shape[2])
        if self.turning is None and self.left_plain is None:  # not yet by a layer that shares these keys
            self.keys = turning.turn(self.keys, self.cumulative_length - self.keys.shape[2])
            self.turning = turning
        return None

    def unturned(self, keys: Tensor) -> Tensor:
        """Keys that `update` returned, un-rotated."""
        turning: Turning | None = getattr(keys, TURNED)
        return keys if turning is None else self._back(keys, turning)

    def _back(self, keys: Tensor, turning: Turning) -> Tensor:
        return turning.turn(keys, self.cumulative_length - keys.shape[2], back=True)

    def release(self, reason: str) -> None:
        """Go back to un-rotated keys, and stay there until `reset`."""
        if self.turning is not None:
            self.keys = self._back(self.keys, self.turning)
            self.turning = None
        self.left_plain = reason

    def reset(self) -> None:
        """Forget everything."""
        self.turning = self.left_plain = self._latest = None
        super().reset()
