"""An extension comes and goes without a trace, and models do not disturb one another."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel

import ropewalk
from ropewalk.errors import BackendError, MethodError, ModelError, RopewalkError
from tests.architectures import build
from tests.models.batches import LENGTH, SPECIFICATIONS, TARGET, padded, texts, whole

BANDED, TABLE, DEPENDENT = "self-extend:group=3,window=13", "yarn", "dynamic-ntk"
KINDS = {"banded": BANDED, "table": TABLE, "length-dependent": DEPENDENT}


@pytest.fixture
def llama() -> PreTrainedModel:
    return build("llama")


def traces(model: nn.Module) -> dict[str, Any]:
    """Everything that an extension could leave behind, comparable with ==."""
    ours = {
        path: sorted(k for k in module.__dict__ if k.startswith("_ropewalk") or k in ("forward", "generate"))
        for path, module in model.named_modules()
    }
    hooks = {
        path: len(module._forward_pre_hooks) + len(module._forward_hooks) for path, module in model.named_modules()
    }
    implementations = {
        path: module.config._attn_implementation for path, module in model.named_modules() if hasattr(module, "config")
    }
    return {"names": list(model.state_dict()), "ours": ours, "hooks": hooks, "implementations": implementations}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("method", KINDS.values(), ids=KINDS)
def test_removed_extension_is_the_stock_model(llama: PreTrainedModel, method: str, implementation: str) -> None:
    llama.set_attn_implementation(implementation)
    ids, mask = padded(texts(61, 40), "left")
    stock, before = whole(llama, ids, attention_mask=mask), traces(llama)
    weights = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    config = llama.config.to_dict()
    with ropewalk.extend(llama, method, target_length=TARGET) as extension:
        assert not torch.equal(whole(llama, ids, attention_mask=mask), stock)
        assert llama.state_dict().keys() == weights.keys()
    for _ in range(2):  # leaving the context removed it; removing again does nothing
        assert traces(llama) == before
        assert llama.config.to_dict() == config
        assert torch.equal(whole(llama, ids, attention_mask=mask), stock)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in llama.state_dict().items())
        extension.remove()


@pytest.mark.parametrize("method", KINDS.values(), ids=KINDS)
def test_lifted_extension_is_the_stock_model_and_comes_back(llama: PreTrainedModel, method: str) -> None:
    ids, mask = padded(texts(61, 40), "left")
    stock, before = whole(llama, ids, attention_mask=mask), traces(llama)
    with ropewalk.extend(llama, method, target_length=TARGET) as extension:
        extended, during = whole(llama, ids, attention_mask=mask), traces(llama)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), extension.lifted():
                assert traces(llama) == before
                assert torch.equal(whole(llama, ids, attention_mask=mask), stock)
                raise ZeroDivisionError
            assert traces(llama) == during
            assert torch.equal(whole(llama, ids, attention_mask=mask), extended)
    assert traces(llama) == before
    with pytest.raises(ModelError, match="not attached any more"), extension.lifted():
        pass


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_extended_model_does_not_depend_on_the_stock_attention(llama: PreTrainedModel, implementation: str) -> None:
    (ids,) = texts(LENGTH)
    with ropewalk.extend(llama, BANDED, target_length=TARGET):
        eager = whole(llama, ids)
    llama.set_attn_implementation(implementation)
    with ropewalk.extend(llama, BANDED, target_length=TARGET):
        assert torch.equal(whole(llama, ids), eager)
    assert llama.config._attn_implementation == implementation


def test_context_that_fails_inside_removes_the_extension(llama: PreTrainedModel) -> None:
    before = traces(llama)
    with pytest.raises(ZeroDivisionError), ropewalk.extend(llama, BANDED, target_length=TARGET):
        raise ZeroDivisionError
    assert traces(llama) == before


@pytest.mark.parametrize(
    ("method", "options", "error"),
    [
        ("self-extent", {}, MethodError),
        ("self-extend:group=0", {}, MethodError),
        ("dpe:scales=1/2/3", {}, MethodError),
        ("string:shift=63,window=3", {"target_length": 500}, MethodError),
        ("self-extend:window=50", {"target_length": 40}, MethodError),
        ("dpe", {"backend": "nothing"}, BackendError),
        ("yarn", {"backend": "nothing"}, BackendError),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_refused_extension_leaves_the_model_untouched(
    llama: PreTrainedModel, method: str, options: dict[str, Any], error: type[RopewalkError]
) -> None:
    (ids,) = texts(31)
    stock, before = whole(llama, ids), traces(llama)
    with pytest.raises(error):
        ropewalk.extend(llama, method, **({"target_length": TARGET} | options))
    assert traces(llama) == before
    assert torch.equal(whole(llama, ids), stock)
    ropewalk.extend(llama, BANDED, target_length=TARGET).remove()


def test_extending_twice_is_refused_and_keeps_the_first(llama: PreTrainedModel) -> None:
    (ids,) = texts(LENGTH)
    with ropewalk.extend(llama, BANDED, target_length=TARGET) as first:
        extended = whole(llama, ids)
        with pytest.raises(ModelError, match="already extended with self-extend"):
            ropewalk.extend(llama, "dpe", target_length=TARGET)
        assert torch.equal(whole(llama, ids), extended)
        first.remove()
        with ropewalk.extend(llama, "dpe", target_length=TARGET):
            first.remove()  # belongs to nothing any more
            assert not torch.equal(whole(llama, ids), extended)


def test_models_in_one_process_do_not_disturb_one_another() -> None:
    models = [build("llama"), build("llama"), build("llama"), build("gpt_neox"), build("llama")]
    (ids,) = texts(LENGTH)
    stock = whole(models[4], ids)
    methods = [BANDED, "dpe:window=13", TABLE, "dca:chunk=37,window=7"]
    alone = []
    for model, method in zip(models, methods, strict=False):
        with ropewalk.extend(model, method, target_length=TARGET):
            alone.append(whole(model, ids))
    extensions = [ropewalk.extend(m, method, target_length=TARGET) for m, method in zip(models, methods, strict=False)]
    with torch.no_grad():
        caches = [model(ids[:, :71], use_cache=True).past_key_values for model in models[:4]]
        for start, stop in ((71, 90), (90, 91), (91, LENGTH)):
            for i in (2, 0, 3, 1):
                out = models[i](ids[:, start:stop], past_key_values=caches[i], use_cache=True)
                torch.testing.assert_close(out.logits, alone[i][:, start:stop], rtol=0, atol=1e-4)
            assert torch.equal(whole(models[4], ids), stock)
    extensions[0].remove()
    assert torch.equal(whole(models[0], ids), stock)
    assert torch.equal(whole(models[1], ids), alone[1])


@pytest.mark.parametrize("method", KINDS.values(), ids=KINDS)
def test_deep_copy_of_an_extended_model_is_refused(llama: PreTrainedModel, method: str) -> None:
    (ids,) = texts(LENGTH)
    with ropewalk.extend(llama, method, target_length=TARGET):
        extended = whole(llama, ids)
        with pytest.raises(ModelError, match="cannot be copied"):
            copy.deepcopy(llama)
        assert torch.equal(whole(llama, ids), extended)
    assert torch.equal(whole(copy.deepcopy(llama), ids), whole(llama, ids))


def test_model_that_shares_the_configuration_object_fails_loudly() -> None:
    """The choice of attention is part of the configuration, so models built from one object share it."""
    first = build("llama")
    second = type(first)(first.config).eval()
    (ids,) = texts(31)
    stock = whole(second, ids)
    with ropewalk.extend(first, BANDED, target_length=TARGET), pytest.raises(ModelError, match="not extended"):
        whole(second, ids)
    assert torch.equal(whole(second, ids), stock)


@pytest.mark.parametrize("method", KINDS.values(), ids=KINDS)
def test_training_mode_is_kept(llama: PreTrainedModel, method: str) -> None:
    llama.train()
    llama.model.layers[1].eval()
    before = {path: module.training for path, module in llama.named_modules()}
    with ropewalk.extend(llama, method, target_length=TARGET):
        assert {path: module.training for path, module in llama.named_modules()} == before
    assert {path: module.training for path, module in llama.named_modules()} == before


@pytest.mark.parametrize("method", ["pi", "yarn", "llama3", "dynamic-ntk"])
@pytest.mark.parametrize("backend", ["blockwise", "reference"])
def test_table_method_with_a_named_backend_equals_the_table_alone(
    llama: PreTrainedModel, method: str, backend: str
) -> None:
    ids, mask = padded(texts(LENGTH, 57), "left")
    with ropewalk.extend(llama, SPECIFICATIONS[method], target_length=TARGET) as extension:
        assert extension.backend == "model's own"
        own: Tensor = whole(llama, ids, attention_mask=mask)[mask.bool()]
    with ropewalk.extend(llama, SPECIFICATIONS[method], target_length=TARGET, backend=backend) as extension:
        assert extension.backend == backend
        torch.testing.assert_close(whole(llama, ids, attention_mask=mask)[mask.bool()], own, rtol=0, atol=1e-4)


def test_what_a_user_hung_on_the_model_is_put_back(llama: PreTrainedModel) -> None:
    """Other libraries wrap `generate` and rotary forwards on the instance."""
    generate, rotary = llama.generate, llama.model.rotary_emb
    forward = rotary.forward
    wrapped_generate = lambda *args, **kwargs: generate(*args, **kwargs)  # noqa: E731
    wrapped_forward = lambda *args, **kwargs: forward(*args, **kwargs)  # noqa: E731
    llama.generate, rotary.forward = wrapped_generate, wrapped_forward
    for method in KINDS.values():
        ropewalk.extend(llama, method, target_length=TARGET).remove()
        assert llama.generate is wrapped_generate
        assert rotary.forward is wrapped_forward


def test_model_without_rotary_is_refused() -> None:
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=99)
    with pytest.raises(ModelError, match="not a RoPE model"):
        ropewalk.extend(BertModel(config), BANDED, target_length=TARGET)
    with pytest.raises(ModelError, match="not a transformers model"):
        ropewalk.extend(nn.Linear(3, 3), BANDED, target_length=TARGET)  # type: ignore[arg-type]


def test_describe_says_how_far_a_limited_method_reaches(llama: PreTrainedModel) -> None:
    with ropewalk.extend(llama, "self-extend:group=2,window=16", target_length=100) as extension:
        assert f"reaches {(64 - 16) * 2 + 16} tokens" in extension.describe()
    with ropewalk.extend(llama, "dpe", target_length=100) as extension:
        assert "reaches" not in extension.describe()
