"""Encoders with rotary positions, whose tokens see both sides, extended by every kind of method."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedModel

import ropewalk
from ropewalk.errors import MethodError, ModelError
from ropewalk.models.doctor import diagnose
from tests.architectures import ENCODERS, PRETRAINED_LENGTH, build
from tests.models.batches import LENGTH, POSITION_METHODS, SPECIFICATIONS, TARGET, padded, texts
from tests.models.oracle_model import oracle_logits
from tests.models.test_effective_distances import CASES, shaped
from tests.oracles import distances

TOKENS = {"cls_token_id": 1, "sep_token_id": 2}
every_encoder = pytest.mark.parametrize("family", ENCODERS)


@torch.no_grad()
def hidden(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Hidden states of a base model, [B, T, width]."""
    return model(ids, attention_mask=mask)[0]


def both_sides(distance: Callable[[int], Tensor]) -> Tensor:
    """A method's causal distances below the diagonal, their negatives above it, [1, T, T, pairs or 1]."""
    causal = shaped(distance(LENGTH))
    return causal - causal.transpose(1, 2)


@every_encoder
def test_identity_through_the_seam_is_bit_equal(family: str) -> None:
    found = diagnose(ENCODERS[family]())
    assert (found["equal"], found["max_abs_logit_difference"]) == (True, 0.0)
    assert all(x["max_abs_logit_difference"] <= 1e-4 for x in found["backends"].values() if x["runs"])


@every_encoder
def test_removed_extension_is_the_stock_model(family: str) -> None:
    model = ENCODERS[family]()
    (ids,) = texts(23)
    stock, names = hidden(model, ids), list(model.state_dict())
    for method in ("pi", POSITION_METHODS["dpe"]):
        with ropewalk.extend(model, method, target_length=TARGET) as extension:
            assert extension.spec.bidirectional and extension.plan.bidirectional
            assert not torch.equal(hidden(model, ids), stock)
            assert "\n  cache: " not in extension.describe()
        assert list(model.state_dict()) == names
        assert torch.equal(hidden(model, ids), stock)


@pytest.mark.parametrize("backend", ["blockwise", "reference"])
@pytest.mark.parametrize("method", CASES)
def test_encoder_sees_the_distances_of_the_paper_on_both_sides(method: str, backend: str) -> None:
    model, (text, distance) = ENCODERS["eurobert"](), CASES[method]
    (ids,) = texts(LENGTH)
    wanted = oracle_logits(model, ids, both_sides(distance))
    with ropewalk.extend(model, text, target_length=TARGET, backend=backend):
        torch.testing.assert_close(hidden(model, ids), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["none", "self-extend", "dpe"])
@pytest.mark.parametrize(("family", "reach"), [("modernbert", 7), ("gemma3-encoder", 7)])
def test_windowed_layers_keep_their_window_and_table(family: str, reach: int, method: str) -> None:
    """local_attention 14 is 7 tokens to either side; Gemma's window of 14 becomes 8, its own token included."""
    model, (text, distance) = ENCODERS[family](), CASES[method]
    (ids,) = texts(LENGTH)
    wanted = oracle_logits(model, ids, both_sides(distance), reach=reach)
    with ropewalk.extend(model, text, target_length=TARGET, backend="blockwise") as extension:
        torch.testing.assert_close(hidden(model, ids), wanted, rtol=0, atol=1e-4)
        slides = [i for i, kind in enumerate(model.config.layer_types) if kind == "sliding_attention"]
        assert f"layers {slides} have a window within the trained length" in extension.describe()


def test_log_n_scales_all_queries_by_the_length_of_their_text() -> None:
    model = ENCODERS["eurobert"]()
    ids, longer = texts(LENGTH, TARGET)
    scale = torch.tensor(LENGTH).double().log() / torch.tensor(PRETRAINED_LENGTH).double().log()
    wanted = oracle_logits(model, ids, both_sides(CASES["rerope"][1]), scale.expand(LENGTH))
    batch, mask = padded([ids, longer], "left")
    with ropewalk.extend(model, "rerope:window=13", target_length=TARGET):
        torch.testing.assert_close(hidden(model, ids), wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(hidden(model, batch, mask)[:1, -LENGTH:], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["rerope", "dpe", "dynamic-ntk", "yarn"])
@every_encoder
def test_padded_batch_is_its_rows(family: str, method: str) -> None:
    model = ENCODERS[family]()
    rows = texts(LENGTH, 13, 71)
    with ropewalk.extend(model, SPECIFICATIONS[method], target_length=TARGET):
        alone = torch.cat([hidden(model, row)[0] for row in rows])
        for side in ("left", "right"):
            ids, mask = padded(rows, side)
            torch.testing.assert_close(hidden(model, ids, mask)[mask.bool()], alone, rtol=0, atol=5e-5)


@pytest.mark.parametrize("method", SPECIFICATIONS)
def test_every_method_extends_an_encoder(method: str) -> None:
    model = ENCODERS["modernbert"]()
    (ids,) = texts(LENGTH)
    found = []
    for backend in ("auto", "blockwise", "reference"):
        with ropewalk.extend(model, SPECIFICATIONS[method], target_length=TARGET, backend=backend):
            found.append(hidden(model, ids))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["eurobert", "modernbert"])
def test_a_text_within_the_window_is_that_of_the_stock_model(family: str) -> None:
    model = ENCODERS[family]()
    (ids,) = texts(13)
    stock = hidden(model, ids)
    for method in ("self-extend:group=3,window=13", "dpe:window=13", "rerope:window=13,log_n=false"):
        with ropewalk.extend(model, method, target_length=TARGET):
            torch.testing.assert_close(hidden(model, ids), stock, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["eurobert", "modernbert"])
@pytest.mark.parametrize("method", ["dynamic-ntk", "clex", "longrope:long=1/1/1.3/1.5/2/2.5/3/4,attention_factor=1"])
def test_rows_get_the_table_of_their_own_length(family: str, method: str) -> None:
    """A text within the trained window is the stock model's, bit for bit, whatever its neighbours; a longer one not."""
    model = ENCODERS[family]()
    rows = texts(PRETRAINED_LENGTH, LENGTH)
    stock = [hidden(model, row) for row in rows]
    with ropewalk.extend(model, method, target_length=TARGET) as extension:
        assert torch.equal(hidden(model, rows[0]), stock[0])
        long = hidden(model, rows[1])
        assert (long - stock[1]).abs().max() > 1e-2
        ids, mask = padded(rows, "right")
        torch.testing.assert_close(hidden(model, ids, mask)[:1, :PRETRAINED_LENGTH], stock[0], rtol=0, atol=2e-5)
        extension.pin([TARGET])  # by hand: the bucket of a longer text
        assert (hidden(model, rows[0]) - stock[0]).abs().max() > 1e-2
        extension.pin(None)
        assert torch.equal(hidden(model, rows[1]), long)


def test_a_text_beyond_the_target_is_refused() -> None:
    model = ENCODERS["eurobert"]()
    (ids,) = texts(TARGET + 1)
    for backend in ("auto", "blockwise"):
        with (
            ropewalk.extend(model, "dynamic-ntk", target_length=TARGET, backend=backend),
            pytest.raises(MethodError, match=f"a row grew to {TARGET + 1} tokens and was admitted for {TARGET}"),
        ):
            hidden(model, ids)
    with (
        ropewalk.extend(model, "self-extend:group=2,window=8", target_length=TARGET - 1),
        pytest.raises(MethodError, match=f"a row grew to {TARGET} tokens and was admitted for 120"),
    ):
        hidden(model, ids[:, :-1])


def test_an_empty_row_disturbs_no_other() -> None:
    model = ENCODERS["eurobert"]()
    (ids,) = texts(71)
    batch, mask = ids.repeat(2, 1), torch.ones(2, 71, dtype=torch.int64)
    mask[1] = 0
    for method in ("dynamic-ntk", POSITION_METHODS["rerope"]):
        with ropewalk.extend(model, method, target_length=TARGET):
            torch.testing.assert_close(hidden(model, batch, mask)[:1], hidden(model, ids), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["modernbert", "eurobert", "nomic_bert", "gte", "jina_embeddings_v3"])
def test_models_with_a_head_are_extended_like_their_base(family: str) -> None:
    base = ENCODERS[family]()
    (ids,) = texts(71)
    with ropewalk.extend(base, POSITION_METHODS["dpe"], target_length=TARGET):
        wanted = hidden(base, ids)
    for auto in (AutoModelForMaskedLM, AutoModelForSequenceClassification):
        model = auto.from_config(base.config, attn_implementation="sdpa").eval()
        model.base_model.load_state_dict(base.state_dict(), strict=False)
        with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET):
            torch.testing.assert_close(hidden(model.base_model, ids), wanted, rtol=0, atol=2e-5)
            assert hidden(model, ids).isfinite().all()


def test_gradients_are_those_of_the_reference() -> None:
    model = ENCODERS["modernbert"]()
    ids, mask = padded(texts(71, 13), "right")
    found = []
    for backend in ("blockwise", "reference"):
        with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET, backend=backend):
            loss = model(ids, attention_mask=mask)[0][mask.bool()].sin().sum()
            found.append(torch.autograd.grad(loss, list(model.layers.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_positions_with_gaps_are_seen() -> None:
    """Position ids of a short text that stands for a long one, as tuning on short texts gives them."""
    model = ENCODERS["eurobert"]()
    (ids,) = texts(70)
    positions = torch.cat((torch.arange(29), torch.arange(48, 64), torch.arange(96, 121)))
    causal = shaped(distances.self_extend(121, group=3, window=13))
    distance = (causal - causal.transpose(1, 2))[:, positions][:, :, positions]
    wanted = oracle_logits(model, ids, distance)
    with ropewalk.extend(model, CASES["self-extend"][0], target_length=TARGET), torch.no_grad():
        found = model(ids, position_ids=positions[None])[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "llama-encoder"])
def test_model_that_changes_what_tokens_see_is_refused(family: str) -> None:
    encoder = family == "llama-encoder"
    model = build("llama", AutoModel, is_causal=not encoder)
    (ids,) = texts(71)
    with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET):
        hidden(model, ids)
        model.config.is_causal = encoder
        with pytest.raises(ModelError, match=r"remove\(\) and extend it again"):
            hidden(model, ids)


def test_decoder_that_was_made_an_encoder_is_not_the_causal_model() -> None:
    (ids,) = texts(71)
    found = []
    for is_causal in (True, False):
        model = build("llama", is_causal=is_causal)
        with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET) as extension:
            assert extension.plan.bidirectional == (not is_causal)
            found.append(hidden(model, ids))
    assert (found[0] - found[1]).abs().max() > 1e-2
