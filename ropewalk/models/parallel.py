"""Sequence-parallel prefill: every process runs its part of the tokens, and its queries see the keys of all.

Un-rotated keys need nothing but their place in the text, so that keys and values of all processes are gathered in each
layer and attended to as if the earlier ones lay in a cache: the arithmetic is that of chunked prefill. Weights stand
whole on every process; activations, the cache and the work of every other layer are divided.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.masking_utils import causal_mask_function

from ropewalk.errors import BackendError, ModelError
from ropewalk.models.admission import arguments, refuse_beyond
from ropewalk.models.cache import RotatedLayer
from ropewalk.models.census import quietly
from ropewalk.models.describe import OWN
from ropewalk.models.executors import Banded
from ropewalk.models.held import layer_of
from ropewalk.models.huggingface import Extension
from ropewalk.models.identity import ROUNDED
from ropewalk.models.mask import position_mask, sequences, window_of
from ropewalk.models.seam import Call, device_of, name_of
from ropewalk.models.split import Split

CUT = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")  # what a forward is given for each token
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-5}  # of the largest logit; in half precision ROUNDED
SHORT = 6  # tokens in each chunk of the text that is compared first


class SequenceParallel:
    """A forward that is divided over processes; made by `sequence_parallel`.

    Attributes:
        split: which tokens of the latest text each process had; None before the first.
    """

    def __init__(self, extension: Extension, banded: Banded, group: dist.ProcessGroup | None) -> None:
        self.extension = extension
        self.banded = banded
        self.group = group
        self.split: Split | None = None
        self._visible = torch.ones(0, 0, dtype=torch.bool)
        self._masks: dict[tuple[int | None, int], Tensor] = {}

    def gather(self, part: Tensor) -> Tensor:
        """What every process has for its tokens, [B, own tokens, ...], for all tokens in order, [B, tokens, ...]."""
        return self._divided().gather(part, 1)

    def last(self, part: Tensor) -> Tensor:
        """What the process of the last token has for it, [B, 1, ...]; `part` may be cut by logits_to_keep."""
        found = part[:, -1:].contiguous()
        dist.broadcast(found, group=self.group, group_src=self._divided().last_rank)
        return found

    def gather_cache(self, cache: DynamicCache) -> DynamicCache:
        """A cache of all tokens, on every process, from the caches of their own tokens.

        Raises:
            ModelError: a layer that does not keep every token; prefill with `past_key_values=DynamicCache()`.
        """
        split, whole = self._divided(), DynamicCache()
        for number, layer in enumerate(cache.layers):
            if not isinstance(layer, RotatedLayer) or layer.get_seq_length() != len(split.own):
                raise ModelError(
                    f"layer {number} of the cache is a {type(layer).__name__} with {layer.get_seq_length()} of "
                    f"{len(split.own)} tokens; prefill with past_key_values=DynamicCache()"
                )
            keys, values = layer.keys, layer.values
            assert keys is not None and values is not None
            whole.update(split.gather(keys, 2), split.gather(values, 2), number)
        return whole

    def _divided(self) -> Split:
        if self.split is None:
            raise ModelError("no text was prefilled yet; call the model first")
        return self.split

    def cut(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        """Forward pre-hook: the whole text comes in, this process's tokens go on. All processes refuse alike."""
        if self.extension._seam.executor is not self:
            raise ModelError("the extension was lifted or removed within a sequence-parallel prefill; enter it again")
        given = arguments(self.extension.model.forward, args, kwargs)
        given.pop("kwargs", None)
        for name, value in given.items():
            if isinstance(value, Tensor) and value.ndim and name not in (*CUT, "logits_to_keep"):
                raise ModelError(f"a sequence-parallel prefill does not take {name}; give tokens, mask and positions")
        tokens = next((given[name] for name in CUT[:2] if given.get(name) is not None), None)
        if tokens is None:
            raise ModelError("a sequence-parallel prefill wants the whole text as input_ids or inputs_embeds")
        cache = given.get("past_key_values")
        if cache is not None and (not isinstance(cache, DynamicCache) or cache.get_seq_length() > 0):
            raise ModelError(
                f"a sequence-parallel prefill begins with an empty DynamicCache, got a {type(cache).__name__} of "
                f"{cache.get_seq_length()} tokens; leave the context and go on with gather_cache"
            )
        batch, length = tokens.shape[:2]
        mask, positions = given.get("attention_mask"), given.get("position_ids")
        if mask is not None and mask.shape != (batch, length):
            raise ModelError(f"a sequence-parallel prefill wants a 2-D mask of padding, {batch} x {length} tokens")
        visible = torch.ones(batch, length, dtype=torch.bool, device=tokens.device) if mask is None else mask.bool()
        self.split = self._agreed(tokens, visible)
        self._visible, self._masks = visible, {}
        _require_text(self._mask(None, range(length)), positions)
        limits = self.banded.limits(batch)
        for row, count in enumerate(visible.sum(-1).tolist()):
            refuse_beyond(limits, [row], count)
        given["attention_mask"] = visible.long()
        given["position_ids"] = torch.arange(length, device=tokens.device)[None] if positions is None else positions
        own = self.split.own.to(tokens.device)
        return (), given | {name: given[name][:, own] for name in CUT if given.get(name) is not None}

    def _agreed(self, tokens: Tensor, visible: Tensor) -> Split:
        """The split of a text that all processes were given; ModelError on all of them where they were not."""
        batch, length = visible.shape
        place = torch.arange(1, length + 1, device=visible.device)
        sums = [int((visible * place).sum()), int((tokens * place).sum()) if tokens.ndim == 2 else 0]
        mine = torch.tensor([batch, length, *sums], device=visible.device)
        others = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(others, mine, group=self.group)
        if any(not torch.equal(other, mine) for other in others):
            raise ModelError("the processes were given different texts; give all of them the same tokens and mask")
        return Split(length, dist.get_rank(self.group), len(others), self.group)

    def _mask(self, window: int | None, queries: range) -> Tensor:
        """The mask of a chunk of queries over all keys up to its end."""
        key = (window, queries.start)
        if key not in self._masks:
            self._masks[key] = position_mask(
                batch_size=len(self._visible),
                q_length=len(queries),
                kv_length=queries.stop,
                q_offset=queries.start,
                mask_function=causal_mask_function,
                attention_mask=self._visible[:, : queries.stop],
                local_size=window,
                device=self._visible.device,
            )
        return self._masks[key]

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        """Executor of the seam: gather, then attend chunk by chunk."""
        split = self._divided()
        if torch.is_grad_enabled() and key.requires_grad:
            raise BackendError("a sequence-parallel prefill has no gradients; run it under torch.no_grad()")
        if key.shape[2] != len(split.own):
            raise ModelError(f"{name_of(self.extension.model)}: attention got keys of other tokens than its own")
        layer_of(key)  # attention has met these keys
        key, value = split.gather(key, 2), split.gather(value, 2)
        outputs, begin = [], 0
        for chunk in split.chunks:
            call.position_ids = None  # they count from 0, as the mask does
            asked = query[:, :, begin : begin + len(chunk)]
            seen = self._mask(window_of(mask), chunk)
            outputs.append(
                self.banded(layer, module, asked, key[:, :, : chunk.stop], value[:, :, : chunk.stop], seen, call)
            )
            begin += len(chunk)
        return torch.cat(outputs, 1)


@contextlib.contextmanager
def sequence_parallel(
    extension: Extension, group: dist.ProcessGroup | None = None, *, verify: bool = True
) -> Iterator[SequenceParallel]:
    """Divide the prefill of an extended model over processes, for as long as the context lasts.

    Every process calls the model with the whole text and gets the output for its own tokens: two chunks, one counted
    from each end, because later tokens see more keys. Logits are those of the undivided model up to rounding.

        with sequence_parallel(extension) as parallel, torch.no_grad():
            cache = DynamicCache()
            logits = parallel.last(model(tokens, past_key_values=cache, logits_to_keep=1).logits)
            cache = parallel.gather_cache(cache)  # all tokens, to decode with outside of the context

    A cache holds the un-rotated keys and the values of this process's own tokens.

    Args:
        extension: what `extend` returned, the same on every process of the group, with the same weights.
        group: processes; all of them when left out.
        verify: compare a short text with the undivided model first.

    Raises:
        ModelError: an encoder, a removed extension, or a model with layers besides attention that mix tokens.
        BackendError: a method that leaves attention to the model.
    """
    seam = extension._seam
    banded = seam.executor
    if extension.backend == OWN:
        raise BackendError(
            f"{extension.method.name} leaves attention to the model, which cannot be divided; "
            "extend with backend='blockwise'"
        )
    if not isinstance(banded, Banded):
        raise ModelError(f"{extension.method.name} is not attached, or its prefill is divided already; extend again")
    if extension.spec.bidirectional:
        raise ModelError(f"{name_of(extension.model)} sees later tokens; only causal prefill is divided over processes")
    parallel = SequenceParallel(extension, banded, group)
    stock = _short_logits(extension, dist.get_world_size(group)) if verify else None
    seam.executor = parallel
    hook = extension.model.register_forward_pre_hook(parallel.cut, with_kwargs=True)
    try:
        if stock is not None:
            _require_equal(parallel, stock, _short_logits(extension, dist.get_world_size(group)))
        yield parallel
    finally:
        hook.remove()
        if seam.executor is parallel:
            seam.executor = banded


def _short_logits(extension: Extension, ranks: int) -> Tensor:
    """Logits or hidden states [1, T, V] of a short text, of this process's tokens where the model is divided."""
    model = extension.model
    length = min(2 * ranks * SHORT, extension.target_length)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, model.config.get_text_config().vocab_size, (1, length), generator=generator)
    with quietly(model):
        found: Tensor = model(tokens.to(device_of(model)), use_cache=False)[0]
    return found


def _require_equal(parallel: SequenceParallel, whole: Tensor, part: Tensor) -> None:
    difference = float((parallel.gather(part) - whole).abs().max() / whole.abs().max())
    if not difference <= TOLERANCE.get(whole.dtype, ROUNDED):
        raise ModelError(
            f"{name_of(parallel.extension.model)} cannot be divided by tokens: the logits of a short text differ by "
            f"{difference:.2g} of the largest (layers besides attention mix tokens, or processes differ in weights)"
        )


def _require_text(mask: Tensor, positions: Tensor | None) -> None:
    """Raise ModelError for rows with holes, several documents in one row, or positions that leave tokens out."""
    sequences(mask, mask.shape[-1], None)
    visible = mask[:, 0, 0] >= 0
    neighbours = visible[:, 1:] & visible[:, :-1]
    if positions is not None and bool((neighbours & (positions.diff(dim=-1) != 1)).any()):
        raise ModelError("a sequence-parallel prefill takes one text a row, with positions that grow by one")
