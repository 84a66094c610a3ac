"""Sliding layers whose cached keys are rotated once, by the model's own table: the logits of un-rotated ones."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

import ropewalk
import ropewalk.rotary
from ropewalk.models.sliding_cache import RotatedSlidingLayer
from tests.architectures import WORKS, build
from tests.models.batches import POSITION_METHODS, TARGET, texts
from tests.models.test_cache import CLOSE, assert_equal
from tests.models.test_graphs import assert_decodes
from tests.models.twin_caches import Twins

DPE = POSITION_METHODS["dpe"]
# windows with and without soft caps, sinks, a base of their own, other head widths, layers that share keys
FAMILIES = ("gemma2", "gemma3_text", "gpt_oss", "gemma4_text", "olmo3", "qwen2-window")


@pytest.fixture(scope="module")
def gemma() -> PreTrainedModel:
    return WORKS["gemma3_text"]()


def sliding(cache: Any) -> list[RotatedSlidingLayer]:
    return [layer for layer in cache.layers if isinstance(layer, RotatedSlidingLayer)]


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_tokens_and_rows_with_padding(family: str) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, DPE, target_length=TARGET, verify=False):
        twins = Twins(model, 3)
        for size in (5, 1, 41, 1, 17, 1):  # the window is 8
            assert_equal(twins.step(size, (0, 2, 4) if size == 5 else ()))
        assert all(layer.turning is not None for layer in sliding(twins.ours)) and sliding(twins.ours)
        twins.reorder(torch.tensor([2, 0, 2]))
        assert_equal(twins.step(1))
        twins.select(torch.tensor([0, 2]))
        assert_equal(twins.step(2))
        twins.reset()
        assert_equal(twins.step(9, (0, 2)))


def test_crops_with_the_past_recorded(gemma: PreTrainedModel) -> None:
    with ropewalk.extend(gemma, DPE, target_length=TARGET, verify=False):
        twins = Twins(gemma, 2, kind="sliding")
        twins.step(30, (0, 3))
        for count in (1, 5, 3, 6):
            twins.step(6)
            twins.crop(count)
            assert_equal(twins.step(2))
        twins.copied()
        assert_equal(twins.step(1))
        assert all(layer.turning is not None for layer in sliding(twins.ours))


def test_assisted_decoding_crops_windows(gemma: PreTrainedModel) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    (prompt,) = texts(70)
    with ropewalk.extend(gemma, DPE, target_length=TARGET, verify=False):
        wanted = gemma.generate(prompt, **settings)
        assert torch.equal(gemma.generate(prompt, prompt_lookup_num_tokens=3, **settings), wanted)
        assert torch.equal(gemma.generate(prompt, assistant_model=WORKS["gemma3_text"](), **settings), wanted)


def test_a_decode_step_rotates_one_key_for_each_sliding_layer(
    gemma: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    turn = ropewalk.rotary._rotate
    monkeypatch.setattr(ropewalk.rotary, "_rotate", lambda x, *rest: (numbers.append(x.numel()), turn(x, *rest))[1])
    method = "dca:chunk=37,window=7"
    here = ropewalk.extend(gemma, method, target_length=TARGET, backend="blockwise", verify=False)
    with here as extension, torch.no_grad():
        spec, kinds = extension.spec, [layer.kind for layer in extension.census.layers]
        queries = len({band.query for band in extension.plan.bands})
        of_full = spec.num_kv_heads + queries * spec.num_heads
        wanted = (kinds.count("full") * of_full + kinds.count("sliding") * (spec.num_kv_heads + spec.num_heads)) * (
            spec.head_dim
        )
        cache = DynamicCache(config=gemma.config)
        for length in (20, 90):
            gemma(texts(length)[0][:, cache.get_seq_length() :], past_key_values=cache)
            numbers.clear()
            gemma(texts(1)[0], past_key_values=cache)
            assert sum(numbers) == wanted


def test_gradients_go_back_to_unrotated_keys(gemma: PreTrainedModel) -> None:
    with ropewalk.extend(gemma, DPE, target_length=TARGET, verify=False):
        twins = Twins(gemma, 1)
        twins.step(40)
        twins.step(1)
        attention: Any = next(x.self_attn for x in gemma.model.layers if x.self_attn.sliding_window is not None)
        (ids,) = texts(3)
        found = []
        for cache in (twins.ours, twins.plain):
            logits = gemma(ids, past_key_values=cache).logits
            found.append((logits, torch.autograd.grad(logits.square().mean(), attention.k_proj.weight)[0]))
        for ours, plain in zip(*found, strict=True):
            torch.testing.assert_close(ours, plain, **CLOSE)
        assert found[1][1].abs().max() > 1e-3
        assert all(layer.turning is None for layer in sliding(twins.ours))


def test_decoding_in_graphs(gemma: PreTrainedModel) -> None:
    with ropewalk.extend(gemma, DPE, target_length=TARGET, verify=False):
        torch._dynamo.reset()
        assert_decodes(gemma, "dynamic", graphs=4)
        torch._dynamo.reset()


def test_window_beyond_the_target_stays_unrotated_and_is_named() -> None:
    sizes = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True}
    model = build("qwen2", sliding_window=200, **sizes)
    with ropewalk.extend(model, DPE, target_length=TARGET, verify=False) as extension:
        twins = Twins(model, 1)
        for size in (40, 1, 30, 1):
            assert_equal(twins.step(size))
        assert "a window longer than the target" in extension.describe()
