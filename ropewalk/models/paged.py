"""Continuous batching: transformers' `generate_batch` on an extended model.

Its manager knows attention by a few fixed names only, so that ours stands behind one of them, "paged|eager", and hands
every module that is not extended on to the stock function. The paged cache holds un-rotated keys; each text of a packed
batch is attended to by itself, as if it were alone.
"""

import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.eager_paged import eager_paged_attention_forward

from ropewalk.errors import MethodError, ModelError
from ropewalk.models.override import Override
from ropewalk.models.seam import BINDING, NAME, Seam, call_of, name_of

PAGED = "paged|eager"


def paged_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, Tensor | None]:
    """The function registered with transformers' AttentionInterface under `PAGED`.

    Args:
        query: packed texts, [1, H, T, D].
        key, value: of the same tokens, [1, K, T, D]; the cache gives those before them.
    """
    seam: Seam | None = module.__dict__.get(BINDING)
    if seam is None:
        return eager_paged_attention_forward(module, query, key, value, attention_mask, **given)
    cache = given.pop("cache", None)
    if cache is None:
        raise ModelError(f"{name_of(seam.model)} is in continuous batching; stop its manager before other forwards")
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=given)
    output = query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])
    asked, seen = (given.pop(f"cu_seq_lens_{part}").tolist() for part in "qk")
    call = call_of(query, given)
    for i, (first, last) in enumerate(itertools.pairwise(asked)):
        if last > first:
            slots = slice(seen[i], seen[i + 1])
            output[:, first:last] = seam.alone(
                module, query[:, :, first:last], key[:, :, slots], value[:, :, slots], call
            )
    return output, None


class ContinuousBatching:
    """Lets the manager of continuous batching have an extended model, until `restore`.

    Args:
        model: the extended model.
        takes_attention: whether attention is ours.
        refusal: says why the texts of a batch cannot be served now, or gives None.
    """

    def __init__(self, model: nn.Module, *, takes_attention: bool, refusal: Callable[[], str | None]) -> None:
        self.model = model
        self.takes_attention = takes_attention
        self.refusal = refusal
        self._override = Override(model, "init_continuous_batching", self._init)

    def restore(self) -> None:
        """Take the method of the model back."""
        self._override.restore()

    def _init(self, *args: Any, **kwargs: Any) -> Any:
        """`init_continuous_batching`, with a name for attention that the manager knows."""
        reason = self.refusal()
        if reason is not None:
            raise MethodError(reason)
        if not self.takes_attention:
            return self._override.original(*args, **kwargs)
        AttentionInterface.register(PAGED, paged_attention)
        model: Any = self.model
        model.set_attn_implementation(PAGED)
        try:
            manager = self._override.original(*args, **kwargs)
        except BaseException:
            model.set_attn_implementation(NAME)
            raise
        manager._original_attn_impl = NAME  # what it goes back to when it is stopped
        return manager
