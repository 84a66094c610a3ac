"""Searching factors of longrope on the trained fixture: constraints, resumption, what the profile serves."""

import json
import math

import numpy as np
import pytest
import torch

import ropewalk
from ropewalk.calibrate import factors
from ropewalk.calibrate.confirm import FRESH
from ropewalk.calibrate.dpe import beside
from ropewalk.calibrate.factor_request import SEARCHES, FactorRequest
from ropewalk.calibrate.factors import seed_factors
from ropewalk.calibrate.local import search
from ropewalk.calibrate.population import Sizes
from ropewalk.errors import EvaluationError, ProfileError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Setup, list_units
from ropewalk.methods import parse
from ropewalk.models.huggingface import read_spec
from ropewalk.profile import Profile
from ropewalk.rotary import RotarySpec, default_inv_freq
from tests.fixture import recipe
from tests.oracles import distances

TARGET = 4 * recipe.PRETRAINED_LENGTH
SMALL = Sizes(8, 4, 2, 2, iterations=2)


def asking(task, readings=32, target=TARGET, **changes):
    given = {"task": task, "documents": 1, "knots": 4, "population": SMALL} | changes
    return FactorRequest("fixture", target, str(readings * target), **given)


def searched(fixture_model, request, out, **more):
    model, tokenizer = fixture_model
    return search(factors.run, model, tokenizer, request, out, **more)


def without_times(profile):
    value = json.loads(json.dumps(profile.provenance))
    for trial in value["trials"]:
        del trial["seconds"]
    del value["read"]["seconds"], value["read"]["cpu_seconds"]
    return profile.values, value


@pytest.mark.parametrize("name", SEARCHES)
def test_search_keeps_its_budget_and_its_profile_serves_longrope(fixture_model, needles, tmp_path, name):
    model, _ = fixture_model
    out = tmp_path / "f.json"
    profile = searched(fixture_model, asking(needles, search=name), out)
    found = profile.provenance
    assert found["read"]["readings"] <= 32 and found["budget"]["readings"] == 32
    # 8 seeds and candidates at least, and three documents of four methods that the search never saw
    asked = {trial["method"] for trial in found["trials"] if trial["document"] == 0}
    assert len(asked) >= 8
    assert found["held_out"]["documents"] >= 3
    assert {each["against"] for each in found["held_out"]["comparisons"]} == {"pi", "ntk", "yarn"}
    assert {trial["document"] for trial in found["trials"]} - {0} >= {FRESH, FRESH + 1, FRESH + 2}
    with ropewalk.extend(model, f"longrope:profile={out}") as extension:
        assert extension.target_length == TARGET and str(out) in extension.describe()
        table = extension.method.table(extension.spec, TARGET)
        own = np.array(extension.spec.inv_freq)
    assert np.allclose(own / table.inv_freq.array[0], profile.values["long"])
    assert table.attention_scaling == pytest.approx(profile.values["attention_factor"])
    kept = {"searched": math.sqrt(1 + math.log(4) / math.log(128)), "yarn": 0.1 * math.log(4) + 1}
    assert profile.values["attention_factor"] == pytest.approx(kept.get(found["kept"], 1.0))


def test_start_tokens_are_searched_and_kept_in_the_profile(fixture_model, needles, tmp_path):
    model, _ = fixture_model
    out = tmp_path / "f.json"
    profile = searched(fixture_model, asking(needles, search="longrope", retain=True), out)
    trials = {trial["method"] for trial in profile.provenance["trials"]}
    retained = {parse(method).retain for method in trials if method.startswith("longrope")}
    assert None in retained and len(retained) > 2
    profile.values["retain"] = 4
    profile.save(out)
    with ropewalk.extend(model, f"longrope:profile={out}") as extension:
        assert extension.method.retain == 4 and extension.plan.takes_attention
        factors = torch.tensor(profile.values["long"], dtype=torch.float64)
        ours = extension.plan.effective_distance(9)
        assert torch.allclose(ours, distances.retained(9, 4, factors))


@pytest.mark.parametrize(("name", "readings"), [("cma", 40), ("longrope2", 32)])
def test_killed_search_goes_on_to_the_same_profile(fixture_model, needles, tmp_path, monkeypatch, name, readings):
    request = asking(needles, readings, search=name)
    unbroken = searched(fixture_model, request, tmp_path / "a.json")
    append, kept = Store.append, []
    moments = [0, 3, 13, unbroken.provenance["read"]["readings"] - 1]

    def killed(self, row):
        if len(kept) in moments:
            moments.remove(len(kept))
            raise KeyboardInterrupt
        kept.append(row)
        return append(self, row)

    monkeypatch.setattr(Store, "append", killed)
    while moments:
        with pytest.raises(KeyboardInterrupt):
            searched(fixture_model, request, tmp_path / "b.json")
        assert not (tmp_path / "b.json").exists()
    assert without_times(searched(fixture_model, request, tmp_path / "b.json")) == without_times(unbroken)
    assert len(kept) == unbroken.provenance["read"]["readings"]


def test_minutes_become_readings_once(fixture_model, needles, tmp_path):
    out = tmp_path / "f.json"
    request = FactorRequest("fixture", TARGET, "1h", task=needles, documents=1, population=SMALL, search="longrope")
    searched(fixture_model, request, out)
    settled = json.loads(beside(out, "run.json").read_text())["settled"]
    lines = []
    searched(fixture_model, request, out, say=lines.append)
    assert json.loads(beside(out, "run.json").read_text())["settled"] == settled
    assert not [line for line in lines if "a reading takes" in line]


def test_seeds_are_the_published_tables():
    spec = RotarySpec(128, 128, 5e5, 8192, 8, 8, 2, tuple(default_inv_freq(5e5, 128).tolist()))
    seeds = seed_factors(spec, 16.0)
    assert set(seeds["pi"]) == {16.0}
    assert seeds["ntk"] == pytest.approx([16 ** (2 * i / 126) for i in range(64)])
    # LongRoPE2: the base of the NTK part puts the factor on the critical pair, 35 of LLaMA3-8B
    assert seeds["critical"] == pytest.approx([min(16.0, 16 ** (i / 35)) for i in range(64)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 128}, "the trained window is 128; give a longer one"),
        ({"readings": 5}, "holds 5 readings"),
        ({"knots": 1}, "give 2 to 16"),
        ({"search": "genetic"}, "unknown search 'genetic'"),
        ({"objective": "hits"}, "unknown objective 'hits'"),
        ({"corpus": "moby"}, "did you mean 'moby-dick'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_reading(fixture_model, needles, tmp_path, changes, message):
    with pytest.raises(EvaluationError, match=message):
        searched(fixture_model, asking(needles, **changes), tmp_path / "f.json")
    file = beside(tmp_path / "f.json", "trials.db")
    if file.exists():
        with Store(file) as store:
            assert store.rows() == []


def test_profile_refuses_other_models_and_its_own_prompts(fixture_model, needles, tmp_path):
    model, tokenizer = fixture_model
    out = tmp_path / "f.json"
    searched(fixture_model, asking(needles), out)
    spec = read_spec(model)
    other = RotarySpec(32, 32, 1e4, 256, 2, 2, 2, spec.inv_freq)
    with pytest.raises(ProfileError, match=r"made on another model: .*window 128; this model has .*window 256"):
        parse(f"longrope:profile={out}").resolve(other, TARGET)
    dpe = Profile.load(out)
    Profile("dpe", dpe.fingerprint, {"scales": [2.0]}).save(tmp_path / "d.json")
    with pytest.raises(ProfileError, match="for 'dpe', wanted one for 'longrope'"):
        parse(f"longrope:profile={tmp_path / 'd.json'}").resolve(spec, TARGET)
    unit = list_units([needles], [f"longrope:profile={out}"], [TARGET], samples=1, seeds=[1_000_000])[0]
    setup = Setup(corpus="moby-dick")
    with (
        Bench(model, tokenizer, name="fixture", setup=setup) as bench,
        pytest.raises(EvaluationError, match="was calibrated on this prompt"),
    ):
        bench.measure(unit, lambda stage, fraction: None)
