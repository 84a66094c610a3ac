"""A run on position rows: it moves the new rows alone, learns, goes on to the same weights, and loads again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy, normalize
from transformers import TrainerCallback

import ropewalk
from ropewalk.errors import MethodError, ProfileError, TrainingError
from ropewalk.train.embedding.pairs import Pairs, read_pairs
from ropewalk.train.embedding.rows import NewRows, collate
from ropewalk.train.embedding.run import tune
from ropewalk.train.embedding.settings import TuneSettings
from tests.models.embedding.encoders import LENGTH, build, llama, pipeline, states, table_of, texts, tokenizer, words

TARGET, STRIDE = 30, 3
SETTINGS = TuneSettings(
    method="interpolated-positions", length=LENGTH, target_length=TARGET, steps=6, batch=8, rate=1e-2, warmup=1,
    save_every=2, log_every=1,
)  # fmt: skip
BASES = ("interpolated-positions", "recurrent-positions")


def pairs() -> list[tuple[str, str]]:
    """Halves of texts whose words come from a few of their own, so that there is something to learn."""
    made = []
    for seed in range(16):
        own = words(4, seed=seed).split()
        draws = np.random.default_rng(seed).integers(0, 4, 20)
        text = [own[i] for i in draws]
        made.append((" ".join(text[:10]), " ".join(text[10:])))
    return made


class Stop(TrainerCallback):
    """Breaks a run off after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **named) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trained(folder: Path) -> np.ndarray:
    return load_file(folder / "positions.safetensors")["table"]


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet"])
@pytest.mark.parametrize("method", BASES)
def test_training_moves_the_new_rows_alone(family: str, method: str, tmp_path: Path) -> None:
    model, offset = pipeline(build(family)), 0 if family == "bert" else 2
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    asked = {name: one.requires_grad for name, one in model.named_parameters()}
    result = tune(model, replace(SETTINGS, method=method), pairs(), tmp_path / "run")
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    assert asked == {name: one.requires_grad for name, one in model.named_parameters()}
    table, original = trained(tmp_path / "run"), table_of(model[0].model)[offset:].numpy()
    at = np.arange(LENGTH) * (STRIDE if method.startswith("interpolated") else 1)
    assert np.array_equal(table[at], original)
    moved = {
        "interpolated-positions": lambda p: (
            (original[p // 3] * (3 - p % 3) + original[min(p // 3 + 1, 11)] * (p % 3)) / 3
        ),
        "recurrent-positions": lambda p: original[p % LENGTH],
    }[method]
    new = [p for p in range(TARGET) if p not in at]
    assert all(np.abs(table[p] - moved(p)).max() > 1e-3 for p in new)
    assert list(result.losses) == [1, 2, 3, 4, 5, 6]


def test_training_learns(tmp_path: Path) -> None:
    result = tune(
        pipeline(build("bert")), replace(SETTINGS, steps=40, rate=3e-2, log_every=10), pairs(), tmp_path / "r"
    )
    losses = list(result.losses.values())
    assert losses[-1] < losses[0] - 0.2  # of a loss of ln 8 = 2.1 for guessing; measured 0.3 to 0.4


def test_run_that_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    tune(pipeline(build("bert")), SETTINGS, pairs(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tune(pipeline(build("bert")), SETTINGS, pairs(), tmp_path / "broken", callbacks=[Stop(5)])
    with pytest.raises(TrainingError, match="resume it, or give another folder"):
        tune(pipeline(build("bert")), SETTINGS, pairs(), tmp_path / "broken")
    with pytest.raises(TrainingError, match="has batch = 8, this one 4"):
        tune(pipeline(build("bert")), replace(SETTINGS, batch=4), pairs(), tmp_path / "broken", resume=True)
    for model, given in ((build("bert"), pairs()[1:]), (build("bert", seed=1), pairs())):
        with pytest.raises(TrainingError, match="has pairs_and_table_sha256 = "):
            tune(pipeline(model), SETTINGS, given, tmp_path / "broken", resume=True)
    tune(pipeline(build("bert")), SETTINGS, pairs(), tmp_path / "broken", resume=True)
    assert np.array_equal(trained(tmp_path / "whole"), trained(tmp_path / "broken"))


@pytest.mark.parametrize("method", BASES)
def test_tuned_positions_load_and_keep_short_texts(method: str, tmp_path: Path) -> None:
    model, short, long = build("bert"), texts(LENGTH, 4), texts(TARGET)
    tune(pipeline(build("bert")), replace(SETTINGS, method=method), pairs(), tmp_path / "run")
    table, stock = trained(tmp_path / "run"), states(model, short)
    with ropewalk.extend(model, f"tuned-positions:weights={tmp_path / 'run'}") as extension:
        assert extension.target_length == TARGET
        assert all(torch.equal(one, two) for one, two in zip(states(model, short), stock, strict=True))
        found = states(model, long)[0]
    wanted = build("bert", len(table))
    weights = model.state_dict()
    weights["embeddings.position_embeddings.weight"] = torch.from_numpy(table)
    wanted.load_state_dict(weights)
    assert torch.allclose(found, states(wanted, long)[0], atol=1e-6)


def test_tuned_positions_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tune(pipeline(build("bert")), SETTINGS, pairs(), folder)
    method = f"tuned-positions:weights={folder}"
    with pytest.raises(ProfileError, match="another model's position table"):
        ropewalk.extend(build("bert", seed=1), method)
    with pytest.raises(ProfileError, match="table of 12 positions, this model has 13"):
        ropewalk.extend(build("bert", 13), method)
    with pytest.raises(MethodError, match="trained up to 30 tokens, wanted 31"):
        ropewalk.extend(build("bert"), method, target_length=TARGET + 1)
    with pytest.raises(MethodError, match="wants weights=FOLDER"):
        ropewalk.extend(build("bert"), "tuned-positions", target_length=TARGET)
    settings = folder / "positions.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "version": 99}))
    with pytest.raises(ProfileError, match="is not of version 1"):
        ropewalk.extend(build("bert"), method)
    (folder / "positions.safetensors").write_bytes(b"no tensors")
    settings.write_text(settings.read_text().replace("99", "1"))
    with pytest.raises(ProfileError, match="cannot read tuned positions"):
        ropewalk.extend(build("bert"), method)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "parallel-windows"}, "makes no table that could be trained"),
        ({"method": "none", "target_length": LENGTH}, "has no new rows"),
        ({"length": LENGTH + 1}, "longer than the trained 12"),
        ({"temperature": 0.0}, "temperature must be a number above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=message):
        tune(pipeline(build("bert")), replace(SETTINGS, **changes), pairs(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rotary_pipeline_has_no_rows_to_train(tmp_path: Path) -> None:
    with pytest.raises(ropewalk.errors.ModelError, match="no position table"):
        tune(pipeline(llama()), SETTINGS, pairs(), tmp_path / "run")


def test_bad_loss_stops_the_run_and_names_the_last_checkpoint(tmp_path: Path) -> None:
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **named) -> None:
            if state.global_step == 3:
                model.rows.data[:] = float("nan")

    with pytest.raises(TrainingError, match=r"step 3: the loss is nan; the last good checkpoint: .*checkpoint-2"):
        tune(pipeline(build("bert")), SETTINGS, pairs(), tmp_path / "run", callbacks=[Poison()])


def test_loss_is_cross_entropy_over_the_passages_of_the_batch() -> None:
    model, plain = pipeline(build("bert")), build("bert")
    data = Pairs(pairs(), tokenizer(), length=9, last_start=18, count=4, seed=0)
    drawn = [data[i] for i in range(4)]
    with ropewalk.extend(model[0].model, "recurrent-positions", target_length=TARGET) as extension:
        loss = NewRows(model, extension, temperature=0.1)(**collate(drawn, extension=extension, padding=1))["loss"]
    sides = []
    for side in (0, 1):
        vectors = []
        for one in drawn:
            at = [(one.starts[side] + i) % LENGTH for i in range(len(one.texts[side]))]
            found = plain(torch.tensor([one.texts[side]]), position_ids=torch.tensor([at]))
            vectors.append(normalize(found.last_hidden_state[0].mean(0), dim=0))
        sides.append(torch.stack(vectors))
    wanted = cross_entropy(sides[0] @ sides[1].T / 0.1, torch.arange(4))
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_starts_are_uniform_and_pairs_come_once_an_epoch() -> None:
    data = Pairs(pairs(), tokenizer(), length=9, last_start=3, count=160, seed=0)
    drawn = [data[i] for i in range(160)]
    counts = np.bincount([start for one in drawn for start in one.starts], minlength=4)
    assert len(counts) == 4 and counts.min() > 50  # of 320, in four places
    first, second = ([one.texts for one in drawn[i * 16 : i * 16 + 16]] for i in range(2))
    assert sorted(map(str, first)) == sorted(map(str, second)) and first != second
    assert len(set(map(str, first))) == 16
    again = Pairs(pairs(), tokenizer(), length=9, last_start=3, count=160, seed=0)
    assert again[77] == drawn[77]
    assert all(len(text) <= 9 for one in drawn for text in one.texts)


def test_pairs_of_a_text_are_titles_and_neighbours_each_passage_once(tmp_path: Path) -> None:
    long = [f"Passage {i}. " + "Something is said here at length, and then it is said again. " * 4 for i in range(5)]
    paragraphs = ["CHAPTER 1. Loomings.", long[0], long[1], long[2], '"Grub, ho!"', long[3], long[4]]
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(paragraphs))
    stripped = [one.strip() for one in long]
    assert read_pairs([str(file)]) == [
        ("CHAPTER 1. Loomings.", stripped[0]),
        (stripped[1], stripped[2]),
        (stripped[3], stripped[4]),
    ]
    bundled = read_pairs(["moby-dick"])
    passages = [passage for _, passage in bundled] + [query for query, _ in bundled if len(query) >= 200]
    assert len(bundled) > 500 and len(set(passages)) == len(passages)
    assert [query for query, passage in bundled if passage.startswith("Call me Ish")] == ["CHAPTER 1. Loomings."]
    file.write_text("Too little.")
    with pytest.raises(TrainingError, match="no two passages"):
        read_pairs([str(file)])
    with pytest.raises(TrainingError, match="cannot train on 'moby-duck'"):
        read_pairs(["moby-duck"])
