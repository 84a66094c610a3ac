"""How much every rotary pair weighs in a model's attention: DPE's step 2, in one pass over text."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ropewalk.errors import EvaluationError, ModelError
from ropewalk.evaluate.prefill import prefill
from ropewalk.models.census import Census, quietly, take_census
from ropewalk.models.executors import Banded
from ropewalk.models.seam import Call, Executor, Seam, name_of
from ropewalk.plan import Band, Plan
from ropewalk.rotary import RotarySpec

# Tokens read at a time: the norms of a chunk are all that is held of it.
CHUNK = 4096
SHORTEST = 2048  # tokens, of the prefixes that the authors average over


def prefix_lengths(length: int) -> tuple[int, ...]:
    """2,048 tokens, doubling, up to `length`, as the authors have them; `length` alone where it is shorter."""
    lengths = [length]
    while lengths[-1] >= 2 * SHORTEST:
        lengths.append(lengths[-1] // 2)
    return tuple(reversed(lengths))


def pair_norms(
    model: PreTrainedModel,
    documents: Sequence[Sequence[int]],
    *,
    lengths: Sequence[int] | None = None,
    pretrained_length: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Mean over tokens of |q_i| |k_i| of the same token, for every rotary pair i.

    The statistic of the authors' `sample_qk.py` (arXiv 2504.18857): norms of the two dimensions of a pair, which no
    rotation changes; the mean of products over tokens t, of one document; then the mean over prefix lengths and
    documents. A prefix of a document is read by reading the document, so all lengths cost one pass. They store every
    query and key; here only the sums are kept, so memory does not grow with the text.

    Args:
        model: not extended.
        documents: token ids, each as long as the longest of `lengths` or longer.
        lengths: of the prefixes that are averaged over, tokens; None: every document as a whole.
        pretrained_length: as for `ropewalk.extend`.
        progress: called with the fraction done.

    Returns:
        float64 [layers, query heads, pairs]; zeros for layers that an extension leaves alone (sliding, unrotated).

    Raises:
        EvaluationError: no documents, or one that is shorter than a length.
        ModelError: a model that cannot be extended, or that norms queries and keys after the rotation.
    """
    wanted = [tuple(lengths or (len(ids),)) for ids in documents]
    if not wanted or any(len(ids) < max(each) for ids, each in zip(documents, wanted, strict=True)):
        raise EvaluationError(
            f"norms over prefixes of {max(lengths or (1,))} tokens need documents of that length, one or more; "
            "give longer text or a shorter length"
        )
    seam = Seam(model)
    try:
        seam.attach()
        census = take_census(seam, pretrained_length)
        if any(layer.norms for layer in census.layers):
            raise ModelError(
                f"{name_of(model)} norms queries and keys after rotating them, so the norms before say nothing of key "
                "dimensions; calibrate without --top-k"
            )
        observer = _Observer(census, model.device)
        seam.executor = observer
        for index, (ids, each) in enumerate(zip(documents, wanted, strict=True)):

            def part(done: float, index: int = index) -> None:
                if progress:
                    progress((index + done) / len(documents))

            observer.weights = _weights(each)
            with quietly(model), torch.inference_mode():
                prefill(model, ids[: max(each)], chunk=CHUNK, keep=0, progress=part)
    finally:
        seam.detach()
    found = (observer.sums / len(documents)).cpu().numpy()
    if not np.isfinite(found).all():
        raise EvaluationError(f"{name_of(model)}: norms of queries and keys are not finite; load it in another dtype")
    return found


def _weights(lengths: Sequence[int]) -> Tensor:
    """What each token counts, [max(lengths)]: the mean over prefixes of 1 / length where the prefix holds it."""
    weights = torch.zeros(max(lengths), dtype=torch.float64)
    for length in lengths:
        weights[:length] += 1 / (length * len(lengths))
    return weights


class _Observer:
    """Executor: the model's own attention, and on the way the weighted sums of norms.

    Attributes:
        sums: float64 [layers, heads, pairs].
        weights: of the tokens of the document that is read, [T].
    """

    def __init__(self, census: Census, device: torch.device) -> None:
        spec = census.spec
        plan = Plan((Band(),), spec.table)
        self.census = census
        self.weights = torch.empty(0)
        # Where a device has no float64 (MPS), the sums are kept on the CPU.
        self._where = torch.device("cpu") if device.type == "mps" else device
        self.sums = torch.zeros(spec.num_layers, spec.num_heads, spec.pairs, dtype=torch.float64, device=self._where)
        self._attend: Executor = Banded(census, lambda batch: [plan] * batch, "auto", lambda batch: None)

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        if self.census.layers[layer].kind == "full":
            spec = self.census.layers[layer].spec
            last, new = key.shape[2], query.shape[2]
            weights = self.weights[last - new : last].to(self._where)
            repeats = query.shape[1] // key.shape[1]
            keys = _norms(key[0, :, -new:], spec).repeat_interleave(repeats, 0)  # [H, T, P]
            products = (_norms(query[0], spec) * keys).to(self._where, torch.float64)
            self.sums[layer] += torch.einsum("htp,t->hp", products, weights)
        return self._attend(layer, module, query, key, value, mask, call)


def _norms(x: Tensor, spec: RotarySpec) -> Tensor:
    """Norms of the rotary pairs of x [H, T, D], float32 [H, T, P]."""
    block = x[..., spec.rotary_start : spec.rotary_start + spec.rotary_dim].float()
    if spec.layout == "half":
        first, second = block[..., : spec.pairs], block[..., spec.pairs :]
    else:
        first, second = block[..., 0::2], block[..., 1::2]
    return torch.hypot(first, second)
