"""sentence-transformers pipelines read the target length, pooled and normalised as before."""

import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import ropewalk
from ropewalk.errors import MethodError, ModelError
from ropewalk.models.embedding.windows import Framing, pieces
from tests.models.embedding.encoders import (
    LENGTH,
    LLAMA_LENGTH,
    build,
    lengthened,
    llama,
    pipeline,
    table_of,
    tokenizer,
    words,
)

TARGET = 30
SHORT = ["", "w1", words(6)]  # at most 8 tokens with the special ones: the pipeline's own limit
LONG = words(TARGET - 2, seed=1)
METHODS = ("parallel-windows", "grouped-positions", "recurrent-positions", "interpolated-positions")


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@torch.no_grad()
def mean_state(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """Mean pooling, from the model alone."""
    return model(torch.tensor([ids])).last_hidden_state[0].mean(0).double().numpy()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
def test_short_texts_are_bit_identical(family: str, method: str) -> None:
    model = pipeline(build(family))
    stock = model.encode(SHORT)
    with ropewalk.extend(model, method, target_length=TARGET):
        assert np.array_equal(model.encode(SHORT), stock)


def test_encode_reads_the_target_length_and_truncates_there() -> None:
    model, bert = pipeline(build("bert")), build("bert")
    assert np.array_equal(model.encode(LONG), model.encode(" ".join(LONG.split()[:6])))  # as it is, it cuts
    longer = lengthened(bert, "bert", [table_of(bert)[position // 3] for position in range(TARGET)])
    wanted = unit(mean_state(longer, tokenizer()(LONG)["input_ids"]))
    with ropewalk.extend(model, "grouped-positions", target_length=TARGET):
        assert model.max_seq_length == TARGET
        assert np.allclose(model.encode(LONG), wanted, atol=1e-6)
        assert np.array_equal(model.encode(LONG + " w3 w4"), model.encode(LONG))
    assert model.max_seq_length == 8


@pytest.mark.parametrize("method", METHODS)
def test_mixed_lengths_and_empty_texts_in_one_batch_are_those_alone(method: str) -> None:
    model = pipeline(build("mpnet"))
    some = [*SHORT, LONG, words(LENGTH - 2), words(LENGTH - 1), words(40, seed=3)]
    with ropewalk.extend(model, method, target_length=TARGET):
        alone = np.stack([model.encode(one) for one in some])
        assert np.isfinite(alone).all()
        assert np.allclose(model.encode(some, batch_size=len(some)), alone, atol=1e-6)
        assert np.allclose(model.encode(some, batch_size=2), alone, atol=1e-6)


@pytest.mark.parametrize(("window", "overlap"), [(LENGTH, 0), (7, 0), (9, 3), (5, 2)])
def test_parallel_windows_average_the_pieces_of_a_text(window: int, overlap: int) -> None:
    model, bert = pipeline(build("bert")), build("bert")
    ids = tokenizer()(LONG, add_special_tokens=False)["input_ids"]
    vectors, start, size = [], 0, window - 2
    while start + size < len(ids):
        vectors.append(mean_state(bert, [0, *ids[start : start + size], 2]))
        start += size - overlap
    vectors.append(mean_state(bert, [0, *ids[-size:], 2]))
    method = f"parallel-windows:window={window}" + (f",overlap={overlap}" if overlap else "")
    with ropewalk.extend(model, method, target_length=TARGET):
        assert np.allclose(model.encode(LONG), unit(np.mean(vectors, 0)), atol=1e-6)


def test_parallel_windows_keep_every_token_and_the_special_ones() -> None:
    framing = Framing.of(tokenizer())
    ids = torch.tensor([0, *range(10, 33), 2])
    cut = pieces(ids, framing, window=7, overlap=0)
    assert all(len(one) == 7 and one[0] == 0 and one[-1] == 2 for one in cut)
    assert sorted({int(i) for one in cut for i in one[1:-1]}) == list(range(10, 33))
    assert Framing.of(tokenizer(specials=False)) == Framing((), ())


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_pooling_stays_as_it_is(pooling: str) -> None:
    model, bert = pipeline(build("bert"), pooling=pooling), build("bert")
    longer = lengthened(bert, "bert", [table_of(bert)[position % LENGTH] for position in range(TARGET)])
    with torch.no_grad():
        state = longer(torch.tensor([tokenizer()(LONG)["input_ids"]])).last_hidden_state[0].numpy()
    wanted = {"mean": state.mean(0), "cls": state[0], "lasttoken": state[-1]}[pooling]
    with ropewalk.extend(model, "recurrent-positions", target_length=TARGET):
        assert np.allclose(model.encode([LONG, "w1"])[0], unit(wanted), atol=1e-6)


@pytest.mark.parametrize("method", ["self-extend:group=5,window=6", "ntk", "dynamic-ntk"])
def test_rotary_pipeline_is_the_extended_model_pooled(method: str) -> None:
    model, bare = pipeline(llama(), pooling="lasttoken", specials=False), llama()
    some = [words(40, seed=s) for s in range(2)]
    stock = model.encode(words(7))
    with ropewalk.extend(bare, method, target_length=48), torch.no_grad():
        wanted = [
            unit(bare(**tokenizer(specials=False)(one, return_tensors="pt", return_token_type_ids=False))
                 .last_hidden_state[0, -1].numpy())
            for one in some
        ]  # fmt: skip
    with ropewalk.extend(model, method, target_length=48) as extension:
        assert np.allclose(model.encode(some), wanted, atol=1e-5)
        assert "texts are cut at 48 tokens (at 8 before)" in extension.describe()
    assert np.array_equal(model.encode(words(7)), stock)


def test_parallel_windows_and_the_baseline_take_a_rotary_pipeline() -> None:
    model = pipeline(llama(), pooling="lasttoken", specials=False)
    stock = model.encode(words(8))
    with ropewalk.extend(model, "parallel-windows", target_length=48):
        bare = llama()
        ids = tokenizer(specials=False)(words(40))["input_ids"]
        starts = (0, LLAMA_LENGTH, len(ids) - LLAMA_LENGTH)
        with torch.no_grad():
            last = [bare(torch.tensor([ids[s : s + LLAMA_LENGTH]])).last_hidden_state[0, -1].numpy() for s in starts]
        assert np.allclose(model.encode(words(40)), unit(np.mean(last, 0)), atol=1e-6)
    with ropewalk.extend(model, "none", target_length=12):
        assert np.array_equal(model.encode(words(8)), stock) and model.max_seq_length == 12


def test_target_below_the_trained_length_is_refused() -> None:
    for made in (build("bert"), llama()):
        model = pipeline(made)
        method = "ntk" if made.config.model_type == "llama" else "grouped-positions"
        with pytest.raises(MethodError, match=r"target of 9 tokens is below the (12|16) that the model was trained on"):
            ropewalk.extend(model, method, target_length=9)
        assert model.max_seq_length == 8
        ropewalk.extend(model, method, target_length=32).remove()


@pytest.mark.parametrize("method", ["grouped-positions", "parallel-windows"])
def test_pipeline_that_cuts_texts_for_reasons_of_its_own_is_refused(method: str) -> None:
    model = pipeline(build("bert"))
    model[0].processing_kwargs["text"] = {"max_length": 9, "truncation": True}
    stock = model.encode(LONG)
    with pytest.raises(ModelError, match="passes 9 tokens of a text that has more than 30"):
        ropewalk.extend(model, method, target_length=TARGET)
    assert model.max_seq_length == 8 and np.array_equal(model.encode(LONG), stock)
    del model[0].processing_kwargs["text"]
    ropewalk.extend(model, method, target_length=TARGET).remove()


def test_pipeline_that_joins_texts_without_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pipeline(build("bert"))
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="set unpad_inputs of its first module"):
        patch.setattr(model, "preprocess", lambda texts: {"input_ids": torch.zeros(1, 9), "position_ids": None})
        ropewalk.extend(model, "grouped-positions", target_length=TARGET)
    assert model.max_seq_length == 8
    ropewalk.extend(model, "grouped-positions", target_length=TARGET).remove()


def test_pipeline_without_a_transformers_model_is_refused() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(tokenizer().backend_tokenizer, embedding_dim=4)
    with pytest.raises(ModelError, match="begins with StaticEmbedding"):
        ropewalk.extend(SentenceTransformer(modules=[static], device="cpu"), "grouped-positions", target_length=TARGET)


def test_extended_pipeline_is_neither_extended_again_nor_copied() -> None:
    model = pipeline(build("bert"))
    with ropewalk.extend(model, "parallel-windows", target_length=TARGET):
        with pytest.raises(ModelError, match="already extended"):
            ropewalk.extend(model, "grouped-positions", target_length=TARGET)
        with pytest.raises(ModelError, match="cannot be copied"):
            copy.deepcopy(model)
    with ropewalk.extend(model[0].model, "grouped-positions", target_length=TARGET), pytest.raises(ModelError):
        ropewalk.extend(model, "grouped-positions", target_length=TARGET)


def test_window_without_room_and_a_prompt_left_out_of_pooling_are_refused() -> None:
    model = pipeline(build("bert"))
    with pytest.raises(MethodError, match="take a larger window"):
        ropewalk.extend(model, "parallel-windows:window=4,overlap=2", target_length=TARGET)
    with pytest.raises(MethodError, match="between 1 and 12"):
        ropewalk.extend(model, "parallel-windows:window=13", target_length=TARGET)
    model[1].include_prompt = False
    with (
        ropewalk.extend(model, "parallel-windows", target_length=TARGET),
        pytest.raises(MethodError, match="include_prompt"),
    ):
        model.encode(LONG, prompt="w1 w2 ")


def test_special_tokens_that_depend_on_the_text_are_refused() -> None:
    class Strange:
        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [7, 8] if add_special_tokens else [9]}

    with pytest.raises(ModelError, match="take another method"):
        Framing.of(Strange())
