"""One text in two caches of one extended model: ours, and one that is left with un-rotated keys."""

import copy

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from ropewalk.models.held import HoldingLayer
from tests.architectures import VOCABULARY

KINDS = ("dynamic", "static", "sliding")


class PlainLayer(DynamicLayer):
    """A layer of a kind that ropewalk does not know and leaves alone."""


class PlainStaticLayer(StaticLayer):
    """The same, of a static cache."""


class PlainSlidingLayer(DynamicSlidingWindowLayer):
    """The same, of a layer with a window."""


class Twins:
    """Runs the same tokens and cache operations through both caches; `step` returns both logits.

    Args:
        kind: of cache, one of `KINDS`; "sliding" is dynamic, for a model with windows.
        room: tokens that a static cache holds at most.

    Attributes:
        visible: which slots hold tokens, bool [B, S].
        recorded: tokens since the last crop, which windows can go back by.
    """

    def __init__(
        self, model: PreTrainedModel, rows: int, seed: int = 0, *, kind: str = "dynamic", room: int = 128
    ) -> None:
        self.model = model
        self.kind = kind
        self.generator = torch.Generator().manual_seed(seed)
        self.ours, self.plain = (self._new(room) for _ in range(2))
        for i, layer in enumerate(self.plain.layers):
            if type(layer) is DynamicLayer:
                self.plain.layers[i] = PlainLayer()
            elif type(layer) is StaticLayer:
                self.plain.layers[i] = PlainStaticLayer(room)
            elif type(layer) is DynamicSlidingWindowLayer:
                self.plain.layers[i] = PlainSlidingLayer(layer.sliding_window)
        if kind == "sliding":  # assisted decoding asks for it, so that windows can be cropped
            self.ours.activate_past_recording()
            self.plain.activate_past_recording()
        self.visible = torch.zeros(rows, 0, dtype=torch.bool)
        self.recorded = 0

    def _new(self, room: int) -> Cache:
        if self.kind == "static":
            return StaticCache(config=self.model.config, max_cache_len=room)
        return DynamicCache(config=self.model.config)

    @property
    def length(self) -> int:
        return self.visible.shape[1]

    @property
    def rotated(self) -> bool:
        """True when every layer of ours that can holds rotated keys."""
        layers = [layer for layer in self.ours.layers if isinstance(layer, HoldingLayer)]
        return bool(layers) and all(layer.rotated is not None for layer in layers)

    @torch.no_grad()
    def step(self, count: int, padding: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Append `count` random tokens to every row, the first `padding[row]` of them padding."""
        rows = len(self.visible)
        ids = torch.randint(3, VOCABULARY, (rows, count), generator=self.generator)
        fresh = torch.ones(rows, count, dtype=torch.bool)
        for row, pads in enumerate(padding):
            fresh[row, :pads] = False
        self.visible = torch.cat((self.visible, fresh), 1)
        self.recorded += count
        positions = (self.visible.cumsum(-1) - 1).clamp(min=0)[:, -count:]
        given = {"attention_mask": self.visible.long(), "position_ids": positions, "use_cache": True}
        ours, plain = (self.model(ids, past_key_values=c, **given).logits[fresh] for c in (self.ours, self.plain))
        assert self.ours.get_seq_length() == self.plain.get_seq_length() == self.length
        return ours, plain

    def crop(self, count: int) -> None:
        self.recorded = 0
        for cache in (self.ours, self.plain):
            cache.crop(-count)
        self.visible = self.visible[:, : self.length - count]

    def reorder(self, rows: Tensor) -> None:
        for cache in (self.ours, self.plain):
            cache.reorder_cache(rows)
        self.visible = self.visible[rows]

    def repeat(self, times: int) -> None:
        for cache in (self.ours, self.plain):
            cache.batch_repeat_interleave(times)
        self.visible = self.visible.repeat_interleave(times, 0)

    def select(self, rows: Tensor) -> None:
        for cache in (self.ours, self.plain):
            cache.batch_select_indices(rows)
        self.visible = self.visible[rows]

    def copied(self) -> None:
        """Go on with copies, as for a prompt that several texts share."""
        ours, plain = self.ours, self.plain
        self.ours, self.plain = copy.deepcopy(ours), copy.deepcopy(plain)
        for cache in (ours, plain):  # whatever happens to the first ones
            cache.reset() if self.kind == "static" else cache.crop(-1)

    def reset(self) -> None:
        for cache in (self.ours, self.plain):
            cache.reset()
        self.visible = self.visible[:, :0]

    def read(self) -> None:
        """Compare what the caches say that they hold; reading leaves ours un-rotated from then on."""
        for ours, plain in zip(self.ours.layers, self.plain.layers, strict=True):
            if isinstance(plain, DynamicSlidingWindowLayer):  # holds the keys as the stock model does, rotated
                continue
            slots = plain.keys.shape[2]
            seen = self.visible[:, None, -slots:, None]
            seen = torch.nn.functional.pad(seen, (0, 0, 0, slots - seen.shape[2]))  # what a static cache has left
            torch.testing.assert_close(ours.keys * seen, plain.keys * seen, rtol=0, atol=1e-4)
            torch.testing.assert_close(ours.values * seen, plain.values * seen, rtol=0, atol=1e-4)
