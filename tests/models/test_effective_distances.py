"""An extended model, end to end, against a model whose attention is computed from the paper's distances alone."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import ropewalk
from tests.architectures import PRETRAINED_LENGTH, build
from tests.models.batches import LENGTH, TARGET, texts, whole
from tests.models.oracle_model import oracle_logits
from tests.oracles import distances

SCALES = torch.tensor([1.0, 2.0, 3.5, 4.0]).repeat_interleave(2)
CASES: dict[str, tuple[str, Callable[[int], Tensor]]] = {
    "none": ("none", distances.plain),
    "self-extend": ("self-extend:group=3,window=13", partial(distances.self_extend, group=3, window=13)),
    "rerope": ("rerope:window=13,log_n=false", partial(distances.rerope, window=13)),
    "leaky-rerope": (
        "leaky-rerope:window=13,slope=2.7,log_n=false",
        partial(distances.leaky_rerope, window=13, slope=2.7),
    ),
    "dpe": ("dpe:window=13,scales=1/2/3.5/4", partial(distances.dpe, scales=SCALES, window=13)),
    "string": ("string:shift=63,window=3,logit_scale=1", partial(distances.string, shift=63, window=3)),
    "dca": ("dca:chunk=37,window=7", partial(distances.dca, chunk=37, window=7)),
}


def shaped(distance: Tensor) -> Tensor:
    """[T, T] or [T, T, pairs] as [1, T, T, pairs or 1]."""
    while distance.ndim < 3:
        distance = distance[..., None]
    return distance if distance.ndim == 4 else distance[None]


@pytest.mark.parametrize("backend", ["blockwise", "reference"])
@pytest.mark.parametrize("method", CASES)
def test_model_sees_the_distances_of_the_paper(method: str, backend: str) -> None:
    model, (text, distance) = build("llama"), CASES[method]
    (ids,) = texts(LENGTH)
    wanted = oracle_logits(model, ids, shaped(distance(LENGTH)))
    with ropewalk.extend(model, text, target_length=TARGET, backend=backend):
        torch.testing.assert_close(whole(model, ids), wanted, rtol=0, atol=1e-4)


def test_log_n_scales_the_queries_beyond_the_trained_window() -> None:
    model = build("llama")
    (ids,) = texts(LENGTH)
    scale = (torch.arange(1, LENGTH + 1).double().log() / torch.tensor(float(PRETRAINED_LENGTH)).log()).clamp(min=1)
    wanted = oracle_logits(model, ids, shaped(distances.rerope(LENGTH, 13)), scale)
    with ropewalk.extend(model, "rerope:window=13", target_length=TARGET):
        torch.testing.assert_close(whole(model, ids), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["none", "self-extend", "dpe", "dca"])
def test_skipped_positions_are_seen_when_a_mask_of_ones_is_given(method: str) -> None:
    """PoSE: a short text that pretends to be a long one (arXiv 2309.10400)."""
    model, (text, distance) = build("llama"), CASES[method]
    (ids,) = texts(70)
    positions = torch.cat((torch.arange(29), torch.arange(48, 64), torch.arange(96, 121)))
    wanted = oracle_logits(model, ids, shaped(distance(121))[:, positions][:, :, positions])
    with ropewalk.extend(model, text, target_length=TARGET, backend="blockwise"):
        skipped = whole(model, ids, attention_mask=torch.ones_like(ids), position_ids=positions[None])
    torch.testing.assert_close(skipped, wanted, rtol=0, atol=1e-4)
