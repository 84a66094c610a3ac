"""Trained CLEX at inference: chunks and single tokens are the whole text, and nothing is computed again in a bucket."""

import math

import numpy as np
import pytest
import torch

import ropewalk
from ropewalk.grid import Grid
from ropewalk.methods import CLEX, clex
from ropewalk.models.huggingface import read_spec
from tests.architectures import PRETRAINED_LENGTH, WORKS, build
from tests.models.batches import pieces, texts, whole

FAMILIES = ("llama", "qwen2", "mistral", "gpt_neox", "phi", "gemma")
LENGTH, TARGET = 150, 4 * PRETRAINED_LENGTH


def trained(model, kind: str = "projection", seed: int = 0) -> CLEX:
    """A network with weights that move the table."""
    pairs, rng = read_spec(model).pairs, np.random.default_rng(seed)
    weights = {"up": rng.uniform(-0.1, 0.1, (pairs, 12)), "down": rng.normal(0, 0.02, (12, pairs))}
    if kind == "residual":
        weights |= {"middle": rng.normal(0, 0.3, (12, 12)), "clock": rng.normal(0, 1, (2, 12))}
    return CLEX(network=kind, gate=math.inf, **{name: Grid(one) for name, one in weights.items()})


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_and_single_tokens_are_the_whole_text_in_every_family(family) -> None:
    model = WORKS[family]()
    (ids,) = texts(LENGTH)
    with ropewalk.extend(model, trained(model), target_length=TARGET) as extension:
        extension.pin([LENGTH + 10])
        wanted = whole(model, ids)
        for sizes in ((60, 61, 1), (149, 1)):
            torch.testing.assert_close(pieces(model, ids, sizes), wanted, rtol=0, atol=1e-4)
    assert (wanted - whole(model, ids)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["projection", "residual"])
def test_equation_is_solved_once_for_a_bucket(monkeypatch, kind) -> None:
    """Prefill in chunks, decode, a second text of the bucket: one table; a text of another bucket: one more."""
    model, solved = build("llama"), []

    def counted(dynamics, time, **named):
        solved.append(time)
        return original(dynamics, time, **named)

    original = clex.settled
    monkeypatch.setattr(clex, "settled", counted)
    with ropewalk.extend(model, trained(model, kind, seed=len(kind)), target_length=TARGET, verify=False) as extension:
        solved.clear()
        clex._baked.cache_clear()
        for length in (LENGTH, LENGTH - 7, 70):
            extension.pin([length])
            pieces(model, texts(length)[0], (50, 50, 1))
    assert solved == [3.0, 2.0]


def test_keys_of_a_text_are_rotated_once() -> None:
    """What prefill cached is there bit for bit after more chunks and single tokens."""
    model = build("llama")
    (ids,) = texts(LENGTH)
    with ropewalk.extend(model, trained(model), target_length=TARGET, verify=False) as extension, torch.no_grad():
        extension.pin([LENGTH])
        cache = model(ids[:, :80], use_cache=True).past_key_values
        first = [layer.keys.clone() for layer in cache.layers]
        for start, stop in ((80, 140), *((at, at + 1) for at in range(140, LENGTH))):
            cache = model(ids[:, start:stop], past_key_values=cache, use_cache=True).past_key_values
        for layer, keys in zip(cache.layers, first, strict=True):
            assert layer.keys.shape[2] == LENGTH and torch.equal(layer.keys[:, :, :80], keys)
