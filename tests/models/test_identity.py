"""The identity self-test and the doctor: a model that the seam gets wrong does not get through."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama

import ropewalk
from ropewalk.attention import BACKENDS
from ropewalk.errors import ModelError
from ropewalk.models.doctor import diagnose
from ropewalk.models.identity import ROUNDED
from tests.architectures import build
from tests.models.batches import POSITION_METHODS, TARGET, texts, whole

METHOD = POSITION_METHODS["self-extend"]


def crooked(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Make one layer's stock attention scale its output where its rotary turns, on texts of several tokens only.

    One-token probes do not see it, and neither does a model whose rotary is neutral.
    """
    attention: Any = model.model.layers[1].self_attn
    stock = attention.forward

    def forward(hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], *args: Any, **kwargs: Any) -> Any:
        out, weights = stock(hidden_states, position_embeddings, *args, **kwargs)
        turns = hidden_states.shape[1] > 1 and bool((position_embeddings[1] != 0).any())
        return (out * factor if turns else out), weights

    monkeypatch.setattr(attention, "forward", forward)


@pytest.mark.parametrize("method", [METHOD, "yarn"])
def test_model_that_comes_out_different_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    model = build("llama")
    crooked(model, monkeypatch, 1.01)
    (ids,) = texts(31)
    stock, before = whole(model, ids), dict(model.model.rotary_emb.__dict__)
    with pytest.raises(ModelError, match="llama cannot be extended: the identity self-test gives other logits"):
        ropewalk.extend(model, method, target_length=TARGET)
    assert torch.equal(whole(model, ids), stock)
    assert model.model.rotary_emb.__dict__ == before
    assert model.config._attn_implementation == "eager"


def test_smallest_difference_is_enough_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    crooked(model, monkeypatch, 1 + 2e-7)
    with pytest.raises(ModelError, match="largest difference"):
        ropewalk.extend(model, METHOD, target_length=TARGET)


def test_query_scaled_after_the_rotation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation of its own that the probe's single token does not show: factors that begin at the second token."""
    model = build("llama")
    stock = modeling_llama.apply_rotary_pos_emb

    def bent(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        q, k = stock(q, k, cos, sin, *args, **kwargs)
        return (q * 1.01 if q.shape[2] > 1 and bool((sin != 0).any()) else q), k

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", bent)
    with pytest.raises(ModelError, match="llama cannot be extended"):
        ropewalk.extend(model, METHOD, target_length=TARGET)


def test_verify_false_skips_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    crooked(model, monkeypatch, 1.01)
    with ropewalk.extend(model, METHOD, target_length=TARGET, verify=False) as extension:
        assert extension.comparison is None
        assert "self-test" not in extension.describe()


def test_doctor_reports_a_difference_instead_of_raising(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama")
    crooked(model, monkeypatch, 1.01)
    found = diagnose(model)
    assert found["equal"] is False
    assert found["max_abs_logit_difference"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_doctor_finds_a_sound_model_equal_and_restores_it(dtype: torch.dtype, implementation: str) -> None:
    model = build("llama").to(dtype)
    model.set_attn_implementation(implementation)
    modules: dict[nn.Module, set[str]] = {module: set(module.__dict__) for module in model.modules()}
    (ids,) = texts(31)
    stock = whole(model, ids)
    found = diagnose(model)
    assert found["equal"] is True
    allowed = 0.0 if dtype in (torch.float32, torch.float64) else ROUNDED * found["largest_logit"]
    assert found["max_abs_logit_difference"] <= allowed
    assert set(found) == {
        "model",
        "dtype",
        "equal",
        "max_abs_logit_difference",
        "largest_logit",
        "pretrained_length",
        "pairs",
        "layout",
        "layers",
        "scaling",
        "backends",
        "torch",
    }
    assert (found["model"], found["dtype"]) == ("llama", str(dtype).removeprefix("torch."))
    assert (found["pretrained_length"], found["pairs"], found["layout"]) == (64, 8, "half")
    assert found["layers"] == {"full": 2, "sliding": 0, "none": 0}
    assert set(found["backends"]) == set(BACKENDS.names())
    for name, backend in found["backends"].items():
        if not backend["runs"]:  # made for some number types and processors only
            assert name not in ("blockwise", "reference") and backend["reason"]
            continue
        assert (backend["runs"], backend["reason"]) == (True, None)
        if allowed == 0:
            assert backend["max_abs_logit_difference"] <= 1e-4
    assert model.config._attn_implementation == implementation
    assert {module: set(module.__dict__) for module in model.modules()} == modules
    assert torch.equal(whole(model, ids), stock)


def test_bfloat16_seam_is_no_further_from_float32_than_stock() -> None:
    """The tolerance outside float32 is an upper bound; this is the promise itself, on a longer text."""
    exact, rough = build("llama"), build("llama").to(torch.bfloat16)
    exact.load_state_dict({name: tensor.float() for name, tensor in rough.state_dict().items()})
    (ids,) = texts(61)
    wanted = whole(exact, ids)
    stock = (whole(rough, ids).float() - wanted).pow(2).mean().sqrt()
    with ropewalk.extend(rough, "none", target_length=TARGET, backend="blockwise"):
        ours = (whole(rough, ids).float() - wanted).pow(2).mean().sqrt()
    assert ours <= 1.1 * stock
