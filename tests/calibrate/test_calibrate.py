"""Calibrating a loaded model: the trained fixture at four times its window, killed, resumed, refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ropewalk
from ropewalk.calibrate.confirm import FRESH
from ropewalk.calibrate.dpe import beside
from ropewalk.calibrate.local import calibrate
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.settle import authors_tokens
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Setup, list_units
from ropewalk.profile import Profile
from tests.fixture import recipe

TARGET = 4 * recipe.PRETRAINED_LENGTH
# Two groups of eight pairs, the slower ones beyond the trained window. A round and its confirmation take 20 readings.
GROUPS = "2"


def asking(task, readings=22, target=TARGET, **changes):
    given = {"groups": GROUPS, "task": task} | changes
    return Request("fixture", target, str(readings * target), **given)


def stored(out):
    with Store(beside(out, "trials.db")) as store:
        return store.rows()


def without_times(profile):
    value = json.loads(json.dumps(profile.provenance))
    for trial in value["trials"]:
        del trial["seconds"]
    del value["read"]["seconds"], value["read"]["cpu_seconds"]
    return profile.values, value


def test_fixture_is_calibrated_within_its_budget(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    lines = []
    out = tmp_path / "p.json"
    # Below half the window, from there to 16 times the window (these decide), and above.
    profile = calibrate(model, tokenizer, asking(needles, 28, groups="1/2,16"), out, say=lines.append)
    found = profile.provenance
    assert len(stored(out)) == found["read"]["readings"] <= 28
    assert found["read"]["tokens"] == found["read"]["readings"] * TARGET <= found["budget"]["tokens"]
    assert f"{authors_tokens(TARGET):,} tokens" in lines[0]
    fast, middle, _ = (axis["points"] for axis in found["axes"])
    left_alone = {point["value"]: point for point in middle}[1.0]
    # Left unscaled, the pairs just above the window lose the needles; the fast ones do not care.
    assert left_alone["below_best"] > 2 and left_alone["outcome"] == "stopped" and left_alone["documents"] == 1
    assert max(point["below_best"] for point in fast if point["value"] == 1.0) < 1
    assert {row.key.seed for row in stored(out)} == {1_000_000}
    fresh = {trial["document"] for trial in found["trials"]}
    assert found["confirmation"]["documents"] in (0, len([each for each in fresh if each >= FRESH]))
    assert len(found["prompts"]) == len(fresh)


def test_profile_serves_the_method_and_refuses_its_own_prompts(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    out = tmp_path / "p.json"
    profile = calibrate(model, tokenizer, asking(needles), out)
    loaded = Profile.load(out)
    assert loaded.values == profile.values and loaded.provenance["kept"] == profile.provenance["kept"]
    with ropewalk.extend(model, f"dpe:profile={out}") as extension:
        assert extension.target_length == TARGET  # what the profile was made for
        assert list(extension.method.scales) == profile.values["scales"]
        assert str(out) in extension.describe()
    unit = list_units([needles], [f"dpe:profile={out}"], [TARGET], samples=1, seeds=[1_000_000])[0]
    with Bench(model, tokenizer, name="fixture", setup=Setup(corpus="moby-dick")) as bench:
        with pytest.raises(EvaluationError, match="was calibrated on this prompt"):
            bench.measure(unit, lambda stage, fraction: None)
        assert bench.measure(replace(unit, seed=0), lambda stage, fraction: None).n == recipe.NEEDLES


def test_killed_calibration_goes_on_to_the_same_profile(fixture_model, needles, tmp_path, monkeypatch):
    model, tokenizer = fixture_model
    unbroken = calibrate(model, tokenizer, asking(needles), tmp_path / "a.json")
    append, kept = Store.append, []
    # Before the first trial, in the first round, at its end, and before the last trial.
    moments = [0, 1, 9, unbroken.provenance["read"]["readings"] - 1]

    def killed(self, row):
        if len(kept) in moments:
            moments.remove(len(kept))
            raise KeyboardInterrupt
        kept.append(row)
        return append(self, row)

    monkeypatch.setattr(Store, "append", killed)
    while moments:
        with pytest.raises(KeyboardInterrupt):
            calibrate(model, tokenizer, asking(needles), tmp_path / "b.json")
        assert not (tmp_path / "b.json").exists()
    resumed = calibrate(model, tokenizer, asking(needles), tmp_path / "b.json")
    assert without_times(resumed) == without_times(unbroken)
    # No trial was lost, and none measured twice.
    assert len(stored(tmp_path / "b.json")) == len(stored(tmp_path / "a.json")) == len(kept)


def test_larger_budget_takes_the_trials_over(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    out = tmp_path / "p.json"
    first = calibrate(model, tokenizer, asking(needles, 20), out).provenance["read"]["readings"]
    before = {row.key for row in stored(out)}
    second = calibrate(model, tokenizer, asking(needles, 30), out).provenance["read"]["readings"]
    assert len(before) == first < second and before <= {row.key for row in stored(out)}


def test_minutes_are_turned_into_readings_once(fixture_model, needles, tmp_path, monkeypatch):
    model, tokenizer = fixture_model
    measure = Bench.measure
    monkeypatch.setattr(Bench, "measure", lambda *a: replace(measure(*a), seconds=150.0))
    monkeypatch.setattr("ropewalk.calibrate.settle.time_reading", lambda read, **_: read(range(1))[0].seconds)
    request = Request("fixture", TARGET, "1h", groups=GROUPS, task=needles)
    lines = []
    out = tmp_path / "p.json"
    calibrate(model, tokenizer, request, out, say=lines.append)
    settled = json.loads(beside(out, "run.json").read_text())["settled"]
    assert settled["readings"] in (21, 22) and settled["seconds_per_reading"] == 150  # 1 + 0.9 * 3600 / 150, or less
    assert len(stored(out)) <= settled["readings"]
    again = []
    calibrate(model, tokenizer, request, out, say=again.append)
    assert json.loads(beside(out, "run.json").read_text())["settled"] == settled
    assert again == lines[-len(again) :]  # nothing is measured, timed or decided anew


def test_inside_the_window_the_stock_model_is_a_rival(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    request = asking(needles, 20, target=recipe.PRETRAINED_LENGTH)
    profile = calibrate(model, tokenizer, request, tmp_path / "p.json")
    assert profile.provenance["uniform"] == [2.0] * len(profile.provenance["axes"])
    assert profile.provenance["kept"] in ("calibrated", "uniform", "stock")
    fresh = {tuple(each["setting"]) for each in profile.provenance["trials"] if each["document"] >= FRESH}
    assert {(1.0, 1.0), (2.0, 2.0)} <= fresh


def test_key_dimensions_are_on_in_every_trial_and_in_the_profile(fixture_model, needles, tmp_path, monkeypatch):
    model, tokenizer = fixture_model
    monkeypatch.setattr("ropewalk.calibrate.keyfile.key_texts", lambda *a, **k: [list(range(recipe.PRETRAINED_LENGTH))])
    out = tmp_path / "p.json"
    request = asking(needles, top_k=12, key_documents=1)
    profile = calibrate(model, tokenizer, request, out)
    mask = profile.arrays["mask"]
    assert mask.shape == (2, 2, 16) and (mask.sum(-1) == 12).all()
    assert profile.provenance["budget"]["readings"] == 21  # the text of the key dimensions was of the budget
    assert all("keys.json" in row.key.resolved for row in stored(out))
    with ropewalk.extend(model, f"dpe:profile={out}", target_length=TARGET) as extension:
        assert np.array_equal(extension.method.mask.array, mask)
    with pytest.raises(EvaluationError, match="were found otherwise"):
        calibrate(model, tokenizer, asking(needles, top_k=11, key_documents=1), out)


def test_authors_protocol_reads_the_grid_and_confirms_nothing(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    target = 2048
    request = Request("fixture", target, str(30 * target), protocol="paper", groups="2", task=needles, documents=2)
    profile = calibrate(model, tokenizer, request, tmp_path / "p.json")
    assert profile.provenance["confirmation"] is None and "not confirmed" in profile.provenance["kept"]
    assert [[point["value"] for point in axis["points"]] for axis in profile.provenance["axes"]] == [[1.0, 2.0]] * 2
    assert profile.provenance["uniform"] == [32.0, 32.0]  # 2 x target / trained, for the group that is not varied
    assert {trial["document"] for trial in profile.provenance["trials"]} == {0, 1}
    assert profile.provenance["read"]["readings"] == 4 * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_length": 64}, "below the trained window of 128"),
        ({"budget": str(5 * TARGET)}, "holds 5 readings"),
        ({"budget": "soon"}, "'soon' is no budget"),
        ({"groups": "3"}, "16 rotary pairs do not make 3 equal groups"),
        ({"groups": "a,b"}, "'a' is no border"),
        ({"search": ("base",)}, "'base' cannot be searched"),
        ({"corpus": "moby"}, "did you mean 'moby-dick'"),
        ({"top_k": 17}, "between 1 and 16"),
    ],
)
def test_what_cannot_be_is_refused_before_any_reading(fixture_model, needles, tmp_path, changes, message):
    model, tokenizer = fixture_model
    given = {"model": "fixture", "target_length": TARGET, "budget": "1h", "groups": GROUPS, "task": needles}
    with pytest.raises(EvaluationError, match=message):
        calibrate(model, tokenizer, Request(**given | changes), tmp_path / "p.json")
    assert not beside(tmp_path / "p.json", "trials.db").exists() or stored(tmp_path / "p.json") == []


def test_output_and_text_are_checked_first(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    for out, message in (("p.txt", r"must end in \.json"), ("nowhere/p.json", "there is no folder")):
        with pytest.raises(EvaluationError, match=message):
            calibrate(model, tokenizer, asking(needles), tmp_path / out)
    (tmp_path / "short.txt").write_text("A few words only.\n")
    with pytest.raises(EvaluationError, match="give a longer text"):
        calibrate(model, tokenizer, asking(needles, corpus=str(tmp_path / "short.txt")), tmp_path / "p.json")


def test_broken_trials_are_named_and_left_as_they_are(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    file = beside(tmp_path / "p.json", "trials.db")
    file.write_bytes(b"not a database at all, but long enough to look like one" * 20)
    before = file.read_bytes()
    with pytest.raises(EvaluationError, match=r"p\.trials\.db"):
        calibrate(model, tokenizer, asking(needles), tmp_path / "p.json")
    assert file.read_bytes() == before
