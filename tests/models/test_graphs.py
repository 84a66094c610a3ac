"""torch.compile of extended models in one graph: the logits, tokens and gradients of the eager model."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import Cache, CompileConfig, DynamicCache, PreTrainedModel, StaticCache

import ropewalk
from ropewalk.errors import BackendError, MethodError, ModelError
from tests.architectures import ENCODERS, WORKS, build
from tests.models.batches import COMBINED, POSITION_METHODS, TARGET, padded, texts, whole

CLOSE = {"rtol": 0.0, "atol": 1e-4}
METHODS = {name: POSITION_METHODS[name] for name in ("dpe", "dca")} | {
    "yarn": "yarn",
    "self-extend+dynamic-ntk": COMBINED["self-extend+dynamic-ntk"],
}
GREEDY: dict[str, Any] = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=METHODS)
def extended(request: pytest.FixtureRequest, llama: PreTrainedModel) -> Iterator[PreTrainedModel]:
    with ropewalk.extend(llama, METHODS[request.param], target_length=TARGET, verify=False):
        yield llama


def compiled(model: PreTrainedModel, backend: Any = "aot_eager") -> Callable[..., Any]:
    return torch.compile(model.__call__, fullgraph=True, backend=backend)


def new_cache(model: PreTrainedModel, kind: str) -> Cache:
    if kind == "static":
        return StaticCache(config=model.config, max_cache_len=96)
    return DynamicCache(config=model.config)


def assert_decodes(model: PreTrainedModel, kind: str, graphs: int) -> None:
    """Two padded batches, each with a cache of its own: an eager prefill, then compiled steps of one and of several."""
    counter = CompileCounterWithBackend("aot_eager")
    step = compiled(model, counter)
    rows = texts(81, 52)
    ids, mask = padded(rows, "left")
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    wanted = whole(model, ids, attention_mask=mask, position_ids=positions)
    with torch.no_grad():
        for _ in range(2):
            cache = new_cache(model, kind)
            first = {"attention_mask": mask[:, :75], "position_ids": positions[:, :75]}
            model(ids[:, :75], past_key_values=cache, **first)
            for i in range(75, 81):
                now = {"attention_mask": mask[:, : i + 1], "position_ids": positions[:, i : i + 1]}
                if kind == "static":  # as `generate` gives it: one shape for all steps
                    now["attention_mask"] = torch.nn.functional.pad(mask[:, : i + 1], (0, 96 - i - 1))
                logits = step(ids[:, i : i + 1], past_key_values=cache, **now).logits
                torch.testing.assert_close(logits[:, 0], wanted[:, i], **CLOSE)
    assert counter.frame_count <= graphs


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_decoding_takes_few_graphs_for_all_steps_and_caches(extended: PreTrainedModel, kind: str) -> None:
    """With a growing cache torch.compile makes further graphs, once it has seen which lengths differ."""
    assert_decodes(extended, kind, graphs=1 if kind == "static" else 3)


def test_keys_stay_rotated_under_a_graph(llama: PreTrainedModel) -> None:
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False), torch.no_grad():
        step = compiled(llama)
        for kind in ("static", "dynamic"):
            cache = new_cache(llama, kind)
            (ids,) = texts(70)
            llama(ids[:, :60], past_key_values=cache)
            step(ids[:, 60:61], past_key_values=cache, position_ids=torch.tensor([[60]]))
            assert all(layer.rotated is not None and layer.rotated.length == 61 for layer in cache.layers)
            logits = llama(ids[:, 61:], past_key_values=cache).logits
            torch.testing.assert_close(logits, whole(llama, ids)[:, 61:], **CLOSE)


def test_prefill_and_padded_batch_in_a_graph(extended: PreTrainedModel) -> None:
    forward = compiled(extended)
    rows = texts(97, 61)
    ids, mask = padded(rows, "left")
    with torch.no_grad():
        found = forward(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
        torch.testing.assert_close(found, whole(extended, ids, attention_mask=mask)[mask.bool()], **CLOSE)


def test_generate_compiles_its_steps(extended: PreTrainedModel) -> None:
    rows = texts(71, 52)
    ids, mask = padded(rows, "left")
    config = CompileConfig(fullgraph=True, backend="eager", mode=None)
    config._compile_all_devices = True
    found = extended.generate(ids, attention_mask=mask, cache_implementation="static", compile_config=config, **GREEDY)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert torch.equal(found, extended.generate(ids, attention_mask=mask, **GREEDY))


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss", "deepseek_v3"])
def test_other_families_in_a_graph(family: str) -> None:
    """Sliding layers, sinks, latent keys."""
    model = WORKS[family]()
    (ids,) = texts(83)
    with ropewalk.extend(model, METHODS["dpe"], target_length=TARGET, verify=False), torch.no_grad():
        found = compiled(model)(ids, use_cache=False).logits
        torch.testing.assert_close(found, whole(model, ids), **CLOSE)


@pytest.mark.parametrize("name", ["dpe", "yarn"])
def test_gradients_through_a_graph(name: str) -> None:
    model = build("llama").train()
    ids, mask = padded(texts(83, 60), "right")
    labels = ids.masked_fill(mask == 0, -100)
    with ropewalk.extend(model, METHODS[name], target_length=TARGET, verify=False):
        found = []
        for forward in (model.__call__, compiled(model)):
            model.zero_grad()
            forward(ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
            found.append([p.grad.clone() for p in model.parameters()])
    for ours, wanted in zip(*found, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_rotated_cache_takes_no_gradients_in_a_graph(llama: PreTrainedModel) -> None:
    (ids,) = texts(41)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False):
        cache = new_cache(llama, "static")
        with torch.no_grad():
            llama(ids[:, :40], past_key_values=cache)
        with pytest.raises(
            (BackendError, torch._dynamo.exc.TorchDynamoException), match="keys in a cache have no grad"
        ):
            compiled(llama)(ids[:, 40:], past_key_values=cache)


@pytest.mark.parametrize("name", ["dynamic-ntk:factor=1.5", "self-extend:window=13+dynamic-ntk"])
def test_row_beyond_its_pin_is_refused_in_a_graph(llama: PreTrainedModel, name: str) -> None:
    with ropewalk.extend(llama, name, target_length=TARGET, verify=False) as extension, torch.no_grad():
        forward = compiled(llama)
        extension.pin([50, 40])
        forward(torch.cat(texts(40, 40)), use_cache=False)
        with pytest.raises(MethodError, match="41 tokens and was admitted for 40"):
            forward(torch.cat(texts(41, 41)), use_cache=False)


def test_graph_of_a_removed_extension_is_refused(llama: PreTrainedModel) -> None:
    (ids,) = texts(41)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False), torch.no_grad():
        program = torch.export.export(llama, (), {"input_ids": ids, "use_cache": False}).module()
        torch.testing.assert_close(program(input_ids=ids, use_cache=False).logits, whole(llama, ids), **CLOSE)
    with pytest.raises(ModelError, match="compiled for an extension"):
        program(input_ids=ids, use_cache=False)


def test_encoder_rows_of_a_length_dependent_method_want_pins() -> None:
    model = ENCODERS["eurobert"]()
    (ids,) = texts(41)
    with ropewalk.extend(model, "dynamic-ntk", target_length=TARGET, verify=False) as extension, torch.no_grad():
        wanted = model(ids)[0]
        with pytest.raises((MethodError, torch._dynamo.exc.TorchDynamoException), match="pin"):
            compiled(model)(ids)
        torch._dynamo.reset()
        extension.pin([41])
        torch.testing.assert_close(compiled(model)(ids)[0], wanted, **CLOSE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own use
@pytest.mark.parametrize("name", ["dpe", "yarn"])
def test_inductor_decodes_in_one_graph(llama: PreTrainedModel, name: str) -> None:
    (ids,) = texts(50)
    with ropewalk.extend(llama, METHODS[name], target_length=TARGET, verify=False), torch.no_grad():
        step = compiled(llama, "inductor")
        cache = new_cache(llama, "static")
        llama(ids[:, :45], past_key_values=cache)
        wanted = whole(llama, ids)
        for i in range(45, 50):
            logits = step(ids[:, i : i + 1], past_key_values=cache, position_ids=torch.tensor([[i]])).logits
            torch.testing.assert_close(logits[:, 0], wanted[:, i], **CLOSE)
