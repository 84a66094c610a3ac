"""Mixed windows: packs are short documents on their own under the short table, long rows have the rescaled one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.errors import MethodError, TrainingError
from ropewalk.methods import LongRoPE, parse
from ropewalk.train.attached import attach
from ropewalk.train.collator import IGNORED, Example, collate
from ropewalk.train.evaluation import Evaluation
from ropewalk.train.packs import Mixed, MixedSequences
from ropewalk.train.positions import Drawn
from ropewalk.train.run import train
from tests.architectures import PRETRAINED_LENGTH, VOCABULARY, build
from tests.models.batches import texts, whole
from tests.train.test_run import SETTINGS, weights

LENGTH = 2 * PRETRAINED_LENGTH
TARGET = 4 * PRETRAINED_LENGTH
METHOD = LongRoPE(long=tuple(np.linspace(1.0, 4.0, 8).tolist()))
SAMPLER = Mixed(pretrained_length=PRETRAINED_LENGTH, target_length=TARGET, short=0.5)
SETTINGS = replace(
    SETTINGS, method=str(METHOD), positions=str(SAMPLER), length=LENGTH, target_length=TARGET, network_rate=1.0
)


def documents() -> list[np.ndarray]:
    """Three long ones and twelve of 10 to 43 tokens, no token in two of the short ones' first places."""
    generator = np.random.default_rng(0)
    return [generator.integers(3, VOCABULARY, size) for size in [150, *range(10, 46, 3), 300, 200]]


def rows(count: int = 40, seed: int = 0) -> list[Example]:
    data = MixedSequences(documents(), SAMPLER, length=LENGTH, count=count, seed=seed)
    return [data[index] for index in range(count)]


def test_rows_alternate_in_the_share_asked_for_and_depend_on_seed_and_index() -> None:
    packs = [one.segments is not None for one in rows()]
    assert sum(packs) == 20 and len(rows()) == 40
    assert [one.drawn.time for one in rows()] == [1.0 if pack else 4.0 for pack in packs]
    assert all((one.ids == other.ids).all() for one, other in zip(rows(), rows(60), strict=False))
    assert any((one.ids != other.ids).any() for one, other in zip(rows(), rows(seed=1), strict=True))


def test_packs_are_made_of_short_documents_and_long_rows_of_long_ones() -> None:
    short = documents()[1:-2]
    for one in rows():
        assert len(one.ids) == LENGTH
        if one.segments is None:
            starts = [(document, at) for document in documents() for at in (0, LENGTH) if len(document) >= at + LENGTH]
            assert any((one.ids == document[at : at + LENGTH]).all() for document, at in starts)
            continue
        for number in range(one.segments[-1] + 1):
            segment = one.ids[one.segments == number]
            assert 0 < len(segment) <= PRETRAINED_LENGTH
            assert any(segment.tobytes() in document.tobytes() for document in short)


def test_long_documents_are_cut_at_the_window_where_none_is_short() -> None:
    data = MixedSequences([np.arange(300)], SAMPLER, length=LENGTH, count=8, seed=0)
    packs = [one for one in (data[index] for index in range(8)) if one.segments is not None]
    assert packs and all(np.bincount(one.segments).max() <= PRETRAINED_LENGTH for one in packs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_documents_of_a_pack_are_read_as_if_each_were_alone(tmp_path, attention) -> None:
    """In a real forward of a run, beside a long row: logits of every token, on a model with the stock table."""
    model = build("llama")
    model.set_attn_implementation(attention)
    pieces = [one.numpy()[0] for one in texts(30, 20, 14)]
    place = np.arange(64)
    pack = Example(np.concatenate(pieces), Drawn(place, place.astype(float)), np.repeat([0, 1, 2], [30, 20, 14]))
    other = Example.of(np.arange(3, 67), Drawn(place, place.astype(float), 4.0))
    batch = collate([pack, other])
    mask = batch["attention_mask"]
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    found = whole(model, batch["input_ids"], attention_mask=bias, position_ids=batch["position_ids"])
    start = 0
    for piece in pieces:
        alone = whole(model, torch.tensor(piece)[None])
        torch.testing.assert_close(found[0, start : start + len(piece)], alone[0], rtol=0, atol=1e-4)
        start += len(piece)
    torch.testing.assert_close(found[1], whole(model, batch["input_ids"][1:])[0], rtol=0, atol=1e-4)
    labels = batch["labels"][0]
    assert labels[[30, 50]].tolist() == [IGNORED] * 2 and (labels != IGNORED).sum() == 62


def test_first_loss_is_that_of_both_tables(tmp_path) -> None:
    """Oracle: each document of the packs alone in the stock model, the long rows under `pi`-like fixed factors."""
    settings = replace(SETTINGS, steps=1, batch=4)
    result = train(build("llama"), METHOD, SAMPLER, documents(), settings, tmp_path / "out")
    model = build("llama")
    scaling = parse(result.method).table(ropewalk.models.huggingface.read_spec(model), TARGET).attention_scaling
    losses: list[float] = []
    for row in rows(4):
        segments = row.segments if row.segments is not None else np.zeros(LENGTH, int)
        factors = METHOD.long if row.segments is None else (1.0,) * 8
        method = LongRoPE(long=factors, short=factors, attention_factor=scaling)
        with ropewalk.extend(model, method, target_length=TARGET):
            for number in range(segments[-1] + 1):
                ids = torch.tensor(row.ids[segments == number])[None]
                if ids.shape[1] > 1:
                    logits = whole(model, ids)[0, :-1]
                    losses += functional.cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
    assert result.losses[1] == pytest.approx(np.mean(losses), abs=1e-4)


def test_result_switches_tables_at_the_window(tmp_path) -> None:
    result = train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    short, long = texts(60, 200)
    stock = weights(tmp_path / "out")
    assert any(not torch.equal(one, build("llama").state_dict()[name]) for name, one in stock.items())
    with ropewalk.extend(model, result.method) as extension:
        assert extension.method.long == METHOD.long and extension.method.factor == 4
        extension.pin([60])
        near = whole(model, short)
        extension.pin([200])
        far = whole(model, long)
    scaling = extension.plan.table.attention_scaling
    for factors, ids, found in (((1.0,) * 8, short, near), (METHOD.long, long, far)):
        fixed = LongRoPE(long=factors, short=factors, attention_factor=scaling)
        with ropewalk.extend(model, fixed, target_length=TARGET):
            torch.testing.assert_close(found, whole(model, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [50, 2 * PRETRAINED_LENGTH])
def test_evaluation_has_the_tables_of_the_run_at_every_length(length) -> None:
    """The attention factor is that of the target; the short table holds up to the window."""
    model, held = build("llama"), np.random.default_rng(0).integers(3, VOCABULARY, 200)
    with attach(model, METHOD, SAMPLER, SETTINGS, None) as attached:
        found = Evaluation(lengths=[length], documents=[held]).measure(attached)[f"loss@{length}"]
        scaling = attached.trained(length).table(attached.spec, TARGET).attention_scaling
    assert scaling == pytest.approx(math.sqrt(1 + math.log(4) / math.log(PRETRAINED_LENGTH)))
    factors = METHOD.long if length > PRETRAINED_LENGTH else (1.0,) * 8
    fixed = LongRoPE(long=factors, short=factors, attention_factor=scaling)
    ids = torch.tensor(held[:length])[None]
    with ropewalk.extend(model, fixed, target_length=TARGET):
        wanted = functional.cross_entropy(whole(model, ids)[0, :-1], ids[0, 1:])
    assert found == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize("more", [{"retain": 2}, {"log_n": True}, {"logit_scale": 1.1}])
def test_what_is_not_in_the_tables_is_refused(tmp_path, more) -> None:
    with pytest.raises(MethodError, match="log_n, logit_scale and retain are for inference"):
        train(build("llama"), replace(METHOD, **more), SAMPLER, documents(), SETTINGS, tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": PRETRAINED_LENGTH}, "rows beyond the 64 tokens"),
        ({"length": 400}, "no document has 400 tokens"),
        ({"documents": [np.arange(3), np.tile(np.arange(50), 4)]}, "short documents together have fewer tokens"),
        ({"method": parse("pi:factor=4")}, "mixed windows train longrope.*got pi"),
        ({"target_length": PRETRAINED_LENGTH}, "raise the target length of 64"),
    ],
)
def test_mixed_run_that_cannot_be_is_refused(tmp_path, given, message) -> None:
    method = given.pop("method", METHOD)
    data = given.pop("documents", documents())
    with pytest.raises(TrainingError, match=message):
        train(build("llama"), method, SAMPLER, data, replace(SETTINGS, **given), tmp_path / "out")

    with pytest.raises(TrainingError, match="between 0 and 1"):
        replace(SAMPLER, short=1.0)
