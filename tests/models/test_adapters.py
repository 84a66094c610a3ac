"""PEFT adapters on extended models: the logits and gradients of the adapter, whichever of the two came first."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

import ropewalk
from ropewalk.errors import ModelError
from tests.architectures import build
from tests.models.batches import POSITION_METHODS, TARGET, padded, pieces, texts, whole

CLOSE = {"rtol": 0.0, "atol": 1e-4}
METHODS = {name: POSITION_METHODS[name] for name in ("dpe", "string")} | {
    "yarn": "yarn",
    "dpe+yarn": "dpe:window=13,scales=1/1/1.5/3+yarn:factor=1.5",
}
GREEDY: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def adapted() -> PeftModel:
    """A tiny Llama with a LoRA that changes its logits, in evaluation mode; the same one at every call."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(build("llama"), config).eval()
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) / 8
    return model


@pytest.fixture(scope="module")
def merged() -> PreTrainedModel:
    """The same weights without an adapter."""
    return adapted().merge_and_unload()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return METHODS[request.param]


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, **CLOSE)


@pytest.mark.parametrize("choose", [lambda m: m, lambda m: m.get_base_model()], ids=["wrapped", "inner"])
def test_adapter_gives_the_logits_of_its_merged_weights(
    merged: PreTrainedModel, method: str, choose: Callable[[PeftModel], Any]
) -> None:
    """The wrapper or the model in it may be extended; either way the wrapper is called."""
    rows = texts(97, 61)
    ids, mask = padded(rows, "left")
    model = adapted()
    with ropewalk.extend(merged, method, target_length=TARGET, verify=False):
        wanted = [whole(merged, rows[0]), whole(merged, ids, attention_mask=mask)[mask.bool()]]
        tokens = merged.generate(ids, attention_mask=mask, **GREEDY)
    stock = whole(model, rows[0])
    with ropewalk.extend(choose(model), method, target_length=TARGET) as extension:
        assert extension.comparison is not None and extension.comparison.difference == 0
        assert_equal(whole(model, rows[0]), wanted[0])
        assert_equal(pieces(model, rows[0], (40, 1, 31, 1)), wanted[0])
        assert_equal(whole(model, ids, attention_mask=mask)[mask.bool()], wanted[1])
        assert torch.equal(model.generate(input_ids=ids, attention_mask=mask, **GREEDY), tokens)
    assert torch.equal(whole(model, rows[0]), stock)


def test_adapter_put_on_an_extended_model(merged: PreTrainedModel, method: str) -> None:
    (ids,) = texts(97)
    model = build("llama")
    with ropewalk.extend(model, method, target_length=TARGET):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj"], task_type="CAUSAL_LM")
        wrapped = get_peft_model(model, config).eval()
        wrapped.load_state_dict(adapted().state_dict())
        found = whole(wrapped, ids)
    with ropewalk.extend(merged, method, target_length=TARGET, verify=False):
        assert_equal(found, whole(merged, ids))


def test_disabled_merged_and_unmerged_adapters(merged: PreTrainedModel, method: str) -> None:
    (ids,) = texts(97)
    model, plain = adapted(), build("llama")
    with ropewalk.extend(plain, method, target_length=TARGET, verify=False):
        without = whole(plain, ids)
    with ropewalk.extend(merged, method, target_length=TARGET, verify=False):
        wanted = whole(merged, ids)
    assert (without - wanted).abs().max() > 0.1
    with ropewalk.extend(model, method, target_length=TARGET):
        with model.disable_adapter():
            assert_equal(whole(model, ids), without)
        assert_equal(whole(model, ids), wanted)
        model.merge_adapter()
        assert_equal(whole(model, ids), wanted)
        model.unmerge_adapter()
        assert_equal(whole(model, ids), wanted)


def test_training_step_changes_the_adapter_alone(method: str) -> None:
    ids = torch.cat(texts(97, 97))
    model = adapted().train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    with ropewalk.extend(model, method, target_length=TARGET, verify=False):
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[1] < losses[0]
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) != ("lora_" in name), name


@pytest.mark.parametrize("name", ["dpe", "dpe+yarn"])
def test_gradients_of_an_adapter_equal_those_of_the_reference(name: str) -> None:
    (ids,) = texts(97)
    model = adapted()
    found = []
    for backend in ("blockwise", "reference"):
        with ropewalk.extend(model, METHODS[name], target_length=TARGET, backend=backend, verify=False):
            model.zero_grad()
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            found.append({key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad})
    assert len(found[0]) == 12
    for key, gradient in found[0].items():
        size = float(found[1][key].abs().max())
        assert size > 0
        torch.testing.assert_close(gradient, found[1][key], rtol=0, atol=2e-5 * size)


@pytest.mark.parametrize("merge", [False, True], ids=["unloaded", "merged-and-unloaded"])
def test_extension_outlives_the_adapter(merged: PreTrainedModel, method: str, merge: bool) -> None:
    """The model in the wrapper is extended; the wrapper and the adapter are taken away."""
    (ids,) = texts(97)
    model = adapted()
    plain = merged if merge else build("llama")
    with ropewalk.extend(plain, method, target_length=TARGET, verify=False):
        wanted = whole(plain, ids)
    with ropewalk.extend(model.get_base_model(), method, target_length=TARGET):
        bare = model.merge_and_unload() if merge else model.unload()
        assert_equal(whole(bare, ids), wanted)


def test_learned_prefix_of_keys_is_refused() -> None:
    """Its keys were learned as rotated ones; no position method can say where they stand."""
    model = get_peft_model(build("llama"), PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")).eval()
    with pytest.raises(ModelError, match=r"llama cannot be extended: PEFT's PREFIX_TUNING puts learned keys before"):
        ropewalk.extend(model, METHODS["dpe"], target_length=TARGET)


def test_learned_prompt_is_refused_around_the_model_and_read_by_the_extended_model_in_it(method: str) -> None:
    """Its virtual tokens are tokens as others are: the extended model sees them first."""
    model = get_peft_model(build("llama"), PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")).eval()
    with pytest.raises(ModelError, match=r"PROMPT_TUNING puts virtual tokens .*: model\.get_base_model\(\)"):
        ropewalk.extend(model, method, target_length=TARGET)
    (ids,) = texts(97)
    inner = model.get_base_model()
    with ropewalk.extend(inner, method, target_length=TARGET), torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        embedded = torch.cat([model.get_prompt(1), inner.get_input_embeddings()(ids)], 1)
        assert_equal(found, inner(inputs_embeds=embedded).logits)
