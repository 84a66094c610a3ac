"""Encoders with a position table read longer texts, and short texts as they always did."""

import copy
import math
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

import ropewalk
from ropewalk.errors import BackendError, MethodError, ModelError
from ropewalk.methods.tables import InterpolatedPositions
from tests.models.embedding.encoders import (
    FAMILIES,
    LENGTH,
    PADDED,
    batch,
    build,
    lengthened,
    llama,
    states,
    table_of,
    texts,
)

TARGET = 30  # ceil(30 / 12) = 3
FACTOR = 3
METHODS = ("grouped-positions", "recurrent-positions", "interpolated-positions")


def row(table: list[torch.Tensor], method: str, position: int) -> torch.Tensor:
    """The row that a position takes beyond the trained length, from the paper's words."""
    if method == "recurrent-positions":
        while position >= LENGTH:
            position -= LENGTH
        return table[position]
    before, step = position // FACTOR, position % FACTOR
    if method == "grouped-positions" or step == 0 or before == LENGTH - 1:
        return table[before]
    return (table[before].double() * (FACTOR - step) / FACTOR + table[before + 1].double() * step / FACTOR).float()


def oracle(model: PreTrainedModel, family: str, method: str) -> PreTrainedModel:
    table = list(table_of(model)[2 if family in PADDED else 0 :])
    return lengthened(model, family, [row(table, method, position) for position in range(TARGET)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_long_text_is_that_of_a_model_with_the_longer_table(family: str, method: str) -> None:
    model = build(family)
    some = texts(TARGET, 23)
    wanted = states(oracle(model, family, method), some)
    with ropewalk.extend(model, method, target_length=TARGET):
        found = states(model, some)
    for one, two in zip(found, wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("method", [*METHODS, "none", "interpolated-positions:log_n=true"])
@pytest.mark.parametrize("family", FAMILIES)
def test_text_within_the_trained_length_is_bit_identical(family: str, method: str) -> None:
    model = build(family)
    some = texts(LENGTH, 5, 2)
    stock = states(model, some)
    target = LENGTH if method == "none" else TARGET
    with ropewalk.extend(model, method, target_length=target):
        for one, two in zip(states(model, some), stock, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", [*METHODS, "grouped-positions:log_n=true"])
@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
def test_row_of_a_batch_does_not_depend_on_its_neighbours(family: str, method: str, side: str) -> None:
    model = build(family)
    some = texts(7, TARGET, LENGTH, LENGTH + 1)
    with ropewalk.extend(model, method, target_length=TARGET):
        alone = [states(model, [one])[0] for one in some]
        for one, two in zip(states(model, some, side), alone, strict=True):
            assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "mpnet", "roberta"])
def test_log_n_multiplies_the_queries_of_every_text(family: str) -> None:
    model, (text,) = build(family), texts(TARGET)
    scaled = copy.deepcopy(model)
    for path, module in scaled.named_modules():
        if path.split(".")[-1] in ("query", "q", "q_lin"):
            module.weight.data *= math.log(TARGET) / math.log(LENGTH)
            module.bias.data *= math.log(TARGET) / math.log(LENGTH)
    with ropewalk.extend(scaled, "recurrent-positions", target_length=TARGET):
        wanted = states(scaled, [text])[0]
    with ropewalk.extend(model, "recurrent-positions", target_length=TARGET):
        plain = states(model, [text])[0]
    with ropewalk.extend(model, "recurrent-positions:log_n=true", target_length=TARGET):
        assert torch.allclose(states(model, [text])[0], wanted, atol=1e-5)
    assert not torch.allclose(plain, wanted, atol=1e-3)


@pytest.mark.parametrize("method", [*METHODS, "grouped-positions:log_n=true"])
def test_removed_extension_leaves_no_trace(method: str) -> None:
    model = build("bert")
    before = {path: (dict(module.__dict__), len(module._forward_hooks)) for path, module in model.named_modules()}
    stock, weights = states(model, texts(9)), {k: v.clone() for k, v in model.state_dict().items()}
    with ropewalk.extend(model, method, target_length=TARGET) as extension:
        assert model.state_dict().keys() == weights.keys()
    extension.remove()
    after = {path: (dict(module.__dict__), len(module._forward_hooks)) for path, module in model.named_modules()}
    assert [(sorted(own), hooks) for own, hooks in after.values()] == [
        (sorted(own), hooks) for own, hooks in before.values()
    ]
    assert torch.equal(states(model, texts(9))[0], stock[0])
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_head_on_an_encoder_reads_longer_texts_too() -> None:
    config = AutoConfig.for_model("roberta", **{k: getattr(build("roberta").config, k) for k in (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "pad_token_id")})  # fmt: skip
    model = AutoModelForMaskedLM.from_config(config).eval()
    given = batch(texts(TARGET))
    with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
        model(**given)
    with ropewalk.extend(model, "grouped-positions", target_length=TARGET), torch.no_grad():
        assert model(**given).logits.shape == (1, TARGET, config.vocab_size)


def test_positions_given_by_hand_are_rows_of_the_longer_table() -> None:
    model, (text,) = build("bert"), texts(5)
    with ropewalk.extend(model, "recurrent-positions", target_length=TARGET), torch.no_grad():
        first = model(torch.tensor([text]), position_ids=torch.arange(5)[None])
        again = model(torch.tensor([text]), position_ids=torch.arange(LENGTH, LENGTH + 5)[None])
        shifted = model(torch.tensor([text]), position_ids=torch.arange(3, 8)[None])
    assert torch.equal(first.last_hidden_state, again.last_hidden_state)
    assert not torch.allclose(first.last_hidden_state, shifted.last_hidden_state, atol=1e-3)


def test_embeddings_given_in_place_of_tokens_are_placed_alike() -> None:
    for family in ("bert", "roberta"):
        model, (text,) = build(family), texts(TARGET)
        embedded = model.get_input_embeddings()(torch.tensor([text]))
        with ropewalk.extend(model, "interpolated-positions", target_length=TARGET), torch.no_grad():
            found = model(inputs_embeds=embedded).last_hidden_state[0]
            assert torch.allclose(found, states(model, [text])[0], atol=1e-6)


def test_half_precision_keeps_its_dtype_and_its_original_rows() -> None:
    model = build("bert").to(torch.bfloat16)
    some = texts(LENGTH)
    stock = states(model, some)[0]
    with ropewalk.extend(model, "interpolated-positions", target_length=TARGET):
        assert torch.equal(states(model, some)[0], stock)
        assert states(model, texts(TARGET))[0].dtype == torch.bfloat16


def test_pretrained_length_takes_the_first_rows_alone() -> None:
    model = build("bert")
    wanted = lengthened(model, "bert", [table_of(model)[position % 8] for position in range(20)])
    with ropewalk.extend(model, "recurrent-positions", target_length=20, pretrained_length=8):
        assert torch.allclose(states(model, texts(20))[0], states(wanted, texts(20))[0], atol=1e-6)
    with pytest.raises(ModelError, match="table of 12 positions"):
        ropewalk.extend(model, "recurrent-positions", target_length=20, pretrained_length=13)


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("grouped-positions", LENGTH - 1, "below the 12 that the model was trained on"),
        ("grouped-positions:group=2", TARGET, "group 2 reaches 24 tokens"),
        (InterpolatedPositions(factor=0), TARGET, "factor must be a whole number, at least 1"),
        ("recurrent-positions", None, "give the target_length"),
        ("none", LENGTH + 1, "none keeps the table of 12 positions"),
        ("recurent", TARGET, "did you mean 'recurrent-positions'"),
        ("grouped-positions:grup=2", TARGET, "unknown parameter 'grup'; did you mean 'group'"),
        ("grouped-positions+yarn", TARGET, "only one goes at a time"),
    ],
)
def test_wrong_method_is_refused_in_one_line(method: Any, target: int | None, message: str) -> None:
    with pytest.raises(MethodError, match=message) as error:
        ropewalk.extend(build("bert"), method, target_length=target)
    assert "\n" not in str(error.value)


def test_backend_that_would_not_run_is_refused() -> None:
    with pytest.raises(BackendError, match="leaves attention to the model"):
        ropewalk.extend(build("bert"), "grouped-positions", target_length=TARGET, backend="blockwise")


@pytest.mark.parametrize("target", [1, 3])
def test_target_shorter_than_the_self_test_is_no_error(target: int) -> None:
    model, (text,) = build("bert"), [[0, 5, 2][:target]]
    stock = states(model, [text])[0]
    with ropewalk.extend(model, "none", target_length=target):
        assert torch.equal(states(model, [text])[0], stock)
    with pytest.raises(MethodError, match="at least 1 token, got 0"):
        ropewalk.extend(model, "none", target_length=0)


def test_self_test_that_breaks_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = build("bert"), texts(5)
    stock = states(model, text)[0]

    def broken(self: Any, ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no memory"):
        patch.setattr("ropewalk.models.embedding.extension.TableExtension._look_up", broken)
        ropewalk.extend(model, "grouped-positions", target_length=TARGET)
    assert torch.equal(states(model, text)[0], stock)
    ropewalk.extend(model, "grouped-positions", target_length=TARGET).remove()


def test_method_of_the_other_kind_of_model_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="bert is not a RoPE model, which yarn wants"):
        ropewalk.extend(build("bert"), "yarn", target_length=TARGET)
    with pytest.raises(ModelError, match="llama has no position table, which grouped-positions wants"):
        ropewalk.extend(llama(), "grouped-positions", target_length=TARGET)
    with pytest.raises(ModelError, match="extend a SentenceTransformer"):
        ropewalk.extend(build("bert"), "parallel-windows", target_length=TARGET)


def test_model_without_any_positions_is_refused() -> None:
    torch.manual_seed(0)
    model = build("deberta-v2", position_biased_input=False, relative_attention=True)
    with pytest.raises(ModelError, match="neither a rotary module nor a position table"):
        ropewalk.extend(model, "grouped-positions", target_length=TARGET)


def test_text_beyond_the_target_and_a_strange_mask_are_refused() -> None:
    model = build("bert")
    with ropewalk.extend(model, "grouped-positions", target_length=TARGET):
        with pytest.raises(MethodError, match="a text has 31 tokens, and the model was extended to 30"):
            states(model, texts(TARGET + 1))
        given: dict[str, Any] = batch(texts(5))
        given["attention_mask"] = torch.ones(1, 1, 5, 5)
        with pytest.raises(MethodError, match="does not say how long each text is"):
            model(**given)


def test_extended_encoder_is_neither_extended_again_nor_copied() -> None:
    model = build("bert")
    with ropewalk.extend(model, "grouped-positions", target_length=TARGET):
        with pytest.raises(ModelError, match="already extended"):
            ropewalk.extend(model, "recurrent-positions", target_length=TARGET)
        with pytest.raises(ModelError, match="cannot be copied"):
            copy.deepcopy(model)
    copy.deepcopy(model)


def test_decoder_with_a_position_table_is_refused() -> None:
    model = build("bert", is_decoder=True)
    with pytest.raises(ModelError, match="only encoders"):
        ropewalk.extend(model, "grouped-positions", target_length=TARGET)


def test_describe_and_citation_say_what_is_attached() -> None:
    with ropewalk.extend(build("roberta"), "interpolated-positions", target_length=TARGET) as extension:
        told = extension.describe()
        assert "trained on 12 tokens, target 30" in told and "the first position in row 2" in told
        assert "factor = 3: target / trained, rounded up" in told
        assert "longembed" in extension.citation()
