"""One text in two caches of one extended model: ours, and one that is left with un-rotated keys."""

import copy

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ropewalk.models.cache import RotatedLayer
from tests.architectures import VOCABULARY


class PlainLayer(DynamicLayer):
    """A layer of a kind that ropewalk does not know and leaves alone."""


class Twins:
    """Runs the same tokens and cache operations through both caches; `step` returns both logits.

    Attributes:
        visible: which slots hold tokens, bool [B, S].
    """

    def __init__(self, model: PreTrainedModel, rows: int, seed: int = 0) -> None:
        self.model = model
        self.generator = torch.Generator().manual_seed(seed)
        self.ours: DynamicCache = DynamicCache(config=model.config)
        self.plain: DynamicCache = DynamicCache(config=model.config)
        self.plain.layers = [PlainLayer() if type(layer) is DynamicLayer else layer for layer in self.plain.layers]
        self.visible = torch.zeros(rows, 0, dtype=torch.bool)

    @property
    def length(self) -> int:
        return self.visible.shape[1]

    @property
    def rotated(self) -> bool:
        """True when every layer of ours that can holds rotated keys."""
        layers = [layer for layer in self.ours.layers if isinstance(layer, RotatedLayer)]
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
        positions = (self.visible.cumsum(-1) - 1).clamp(min=0)[:, -count:]
        given = {"attention_mask": self.visible.long(), "position_ids": positions, "use_cache": True}
        ours, plain = (self.model(ids, past_key_values=c, **given).logits[fresh] for c in (self.ours, self.plain))
        assert self.ours.get_seq_length() == self.plain.get_seq_length() == self.length
        return ours, plain

    def crop(self, count: int) -> None:
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
            cache.crop(-1)

    def reset(self) -> None:
        for cache in (self.ours, self.plain):
            cache.reset()
        self.visible = self.visible[:, :0]

    def read(self) -> None:
        """Compare what the caches say that they hold; reading leaves ours un-rotated from then on."""
        for ours, plain in zip(self.ours.layers, self.plain.layers, strict=True):
            seen = self.visible[:, None, -plain.keys.shape[2] :, None]
            torch.testing.assert_close(ours.keys * seen, plain.keys * seen, rtol=0, atol=1e-4)
            torch.testing.assert_close(ours.values * seen, plain.values * seen, rtol=0, atol=1e-4)
