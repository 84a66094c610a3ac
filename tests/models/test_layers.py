"""Which layers an extension touches, where it must change nothing, and which models and masks it refuses."""

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

import ropewalk
from ropewalk.errors import MethodError, ModelError
from ropewalk.models import executors
from ropewalk.models.huggingface import read_spec
from tests.architectures import PRETRAINED_LENGTH, WORKS, build
from tests.models.batches import LENGTH, POSITION_METHODS, TARGET, texts, whole

MIXED = {"gemma3_text": [0, 2], "qwen2-window": [0, 2], "qwen3-window": [0, 2], "olmo3": [0, 2]}  # layers that slide
# method -> longest text, tokens, on which it changes nothing
EXACT_UP_TO = {
    "self-extend:group=3,window=13": 13,
    "rerope:window=13,log_n=false": 13,
    "leaky-rerope:window=13,slope=2.7,log_n=false": 13,
    "dpe:window=13": 13,
    "string:shift=63,window=3,logit_scale=1": 63,
    "dca:chunk=37,window=7": 37,
    "none": PRETRAINED_LENGTH,
}


def agree_up_to(model: PreTrainedModel, method: str, length: int) -> float:
    """Largest logit difference to the stock model on a text of `length` tokens."""
    (ids,) = texts(length)
    stock = whole(model, ids)
    with ropewalk.extend(model, method, target_length=TARGET, backend="blockwise"):
        return float((whole(model, ids) - stock).abs().max())


@pytest.mark.parametrize("family", ["llama", *MIXED, "llama-yarn", "glm", "deepseek_v3"])
@pytest.mark.parametrize("method", EXACT_UP_TO)
def test_short_texts_are_those_of_the_stock_model(family: str, method: str) -> None:
    model = WORKS[family]()
    length = EXACT_UP_TO[method]
    assert agree_up_to(model, method, length) < 2e-5
    if method != "none":  # beyond that length it does change something
        assert agree_up_to(model, method, length + 23) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_masks_are_read_once_for_all_layers_of_a_kind(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the host waits wherever it reads: a step with one wait in each layer is as slow as all of them."""
    model, read = WORKS[family](), []
    window_of = executors.window_of
    monkeypatch.setattr(executors, "window_of", lambda mask: read.append(mask) or window_of(mask))
    with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET, verify=False) as extension:
        whole(model, *texts(40))
        assert len(read) == len(set(extension.spec.layer_kinds)) < extension.spec.num_layers


@pytest.mark.parametrize("family", MIXED)
def test_sliding_layers_stay_stock_and_are_named(family: str) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET) as extension:
        assert f"layers {MIXED[family]} have a window within the trained length" in extension.describe()
        assert [i for i, kind in enumerate(extension.spec.layer_kinds) if kind == "sliding"] == MIXED[family]


@pytest.mark.parametrize("family", MIXED)
def test_sliding_layers_keep_their_table_whoever_carries_attention_out(family: str) -> None:
    model = WORKS[family]()
    (ids,) = texts(LENGTH)
    found = []
    for backend in ("auto", "blockwise"):
        with ropewalk.extend(model, "pi:factor=3", target_length=TARGET, backend=backend):
            found.append(whole(model, ids))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_layers_without_rotation_are_named() -> None:
    with ropewalk.extend(WORKS["smollm3"](), POSITION_METHODS["dpe"], target_length=TARGET) as extension:
        assert "layers [2] do not rotate" in extension.describe()


@pytest.mark.parametrize(("family", "scaling"), [("llama-yarn", "yarn"), ("llama-llama3", "llama3")])
def test_scaled_checkpoint_is_recognised_and_not_scaled_twice(family: str, scaling: str) -> None:
    model = WORKS[family]()
    spec = read_spec(model)
    assert spec.scaling == scaling
    for method in ("pi", "yarn", "dynamic-ntk", "dpe:window=13+yarn"):
        with pytest.raises(MethodError, match=f"already carries a '{scaling}' table"):
            ropewalk.extend(model, method, target_length=TARGET)
    with ropewalk.extend(model, "pi:factor=2,stack=true", target_length=TARGET) as extension:
        ratio = extension.plan.table.inv_freq.array[0, 0] / spec.table.inv_freq.array[0, 0]
        assert ratio == pytest.approx([0.5] * spec.pairs)
        assert extension.plan.table.attention_scaling == spec.attention_scaling
    with ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET) as extension:
        assert extension.plan.table == spec.table


def test_yarn_checkpoint_keeps_its_attention_factor() -> None:
    assert read_spec(WORKS["llama-yarn"]()).attention_scaling == pytest.approx(1.1386294)  # 0.1 ln 4 + 1


def test_window_on_every_layer_limits_the_target() -> None:
    model = build("mistral", sliding_window=96)
    (ids,) = texts(89)
    with pytest.raises(MethodError, match="never looks back more than 96 tokens"):
        ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET)
    with ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=96):
        assert whole(model, ids).isfinite().all()
    with pytest.raises(ModelError, match="mistral: nothing to extend"):
        ropewalk.extend(build("mistral", sliding_window=8), POSITION_METHODS["self-extend"], target_length=TARGET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64], ids=str)
def test_dense_mask_given_by_hand_is_refused(dtype: torch.dtype) -> None:
    model = build("llama")
    (ids,) = texts(23)
    visible = torch.ones(1, 1, 23, 23, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape).masked_fill(~visible, -1e9) if dtype.is_floating_point else visible.to(dtype)
    with (
        ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET),
        pytest.raises(ModelError, match="did not come through ropewalk's mask function"),
    ):
        whole(model, ids, attention_mask=mask)


def test_dense_mask_of_a_cached_step_is_refused() -> None:
    model = build("llama")
    (ids,) = texts(24)
    with ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET), torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        with pytest.raises(ModelError, match="did not come through ropewalk's mask function"):
            model(ids[:, -1:], past_key_values=cache, attention_mask=torch.ones(1, 1, 1, 24, dtype=torch.int64))


def test_mask_with_holes_is_refused() -> None:
    model = build("llama")
    (ids,) = texts(23)
    mask = torch.ones_like(ids)
    mask[0, 9:12] = 0
    with (
        ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET),
        pytest.raises(ModelError, match="holes"),
    ):
        whole(model, ids, attention_mask=mask)


def test_encoders_are_refused() -> None:
    bert = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=99)
    with pytest.raises(ModelError, match="bert is not a RoPE model"):
        ropewalk.extend(BertModel(bert), POSITION_METHODS["self-extend"], target_length=TARGET)
