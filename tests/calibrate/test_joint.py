"""The joint search of DPE's scales from a detected profile on, on the trained fixture."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ropewalk
from ropewalk.calibrate import joint
from ropewalk.calibrate.joint import HELD_OUT, JointRequest
from ropewalk.calibrate.local import calibrate, search
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.space import Space
from ropewalk.errors import EvaluationError, ProfileError
from ropewalk.evaluate.store import Store
from ropewalk.methods import DPE
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec, default_inv_freq
from tests.fixture import recipe

TARGET = 4 * recipe.PRETRAINED_LENGTH
SPEC = RotarySpec(64, 64, 1e5, 8192, 9, 3, 30, tuple(default_inv_freq(1e5, 64).tolist()))
GROUPS = ((0, 15), (15, 20), (20, 32))


@pytest.fixture(scope="module")
def detected(fixture_model, tmp_path_factory):
    """A profile that a detection left."""
    from ropewalk.evaluate.tasks import TASKS
    from tests.calibrate import trained

    task = trained.FixtureNeedles()
    path = tmp_path_factory.mktemp("detected") / "p.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS._entries, task.name, task)
        calibrate(*fixture_model, Request("fixture", TARGET, str(24 * TARGET), groups="2", task=task.name), path)
    return path


def asking(start, task, readings=30, **changes):
    given = {"task": task, "documents": 1, "population": 4} | changes
    return JointRequest("fixture", str(start), TARGET, str(readings * TARGET), **given)


def without_times(profile):
    value = json.loads(json.dumps(profile.provenance))
    for trial in value["trials"]:
        del trial["seconds"]
    del value["read"]["seconds"], value["read"]["cpu_seconds"]
    return profile.values, value


def test_joint_search_is_compared_with_what_it_started_from(fixture_model, needles, tmp_path, detected):
    model, tokenizer = fixture_model
    out = tmp_path / "j.json"
    profile = search(joint.run, model, tokenizer, asking(detected, needles), out)
    found = profile.provenance
    assert found["read"]["readings"] <= 30
    assert {each["against"] for each in found["held_out"]["comparisons"]} == {"detected", "uniform"}
    known = Profile.load(detected).provenance
    assert found["settings"]["detected"][:2] == [curve["chosen"] for curve in known["axes"]]
    assert found["settings"]["uniform"] == [8.0, 8.0, 16.0, 1.0]
    read = {trial["document"] for trial in found["trials"]}
    assert read.isdisjoint({trial["document"] for trial in known["trials"]})
    assert len([each for each in read if each >= HELD_OUT]) == found["held_out"]["documents"] >= 3
    with ropewalk.extend(model, f"dpe:profile={out}") as extension:
        assert extension.target_length == TARGET
        assert list(extension.method.scales) == profile.values["scales"]
        assert (extension.method.window, extension.method.logit_scale) == (
            profile.values["window"],
            profile.values["logit_scale"],
        )


def test_search_starts_from_uniform_where_the_detected_scales_are_worse(
    fixture_model, needles, tmp_path, detected, monkeypatch
):
    profile = Profile.load(detected)
    for curve in profile.provenance["axes"]:
        curve["chosen"] = 1.0  # the stock model, four times beyond its window
    start, starts = tmp_path / "bad.json", []
    profile.save(start)

    class Recorded(joint.CMA):
        def __init__(self, point, decode, **options):
            starts.append(decode(np.array(point)))
            super().__init__(point, decode, **options)

    monkeypatch.setattr(joint, "CMA", Recorded)
    found = search(joint.run, *fixture_model, asking(start, needles, readings=15), tmp_path / "j.json").provenance
    assert starts == [tuple(found["settings"]["uniform"])]
    assert found["settings"]["joint"] != found["settings"]["detected"]


def test_killed_joint_search_goes_on_to_the_same_profile(fixture_model, needles, tmp_path, detected, monkeypatch):
    request = asking(detected, needles)
    unbroken = search(joint.run, *fixture_model, request, tmp_path / "a.json")
    append, kept = Store.append, []
    moments = [0, 2, 9, unbroken.provenance["read"]["readings"] - 1]

    def killed(self, row):
        if len(kept) in moments:
            moments.remove(len(kept))
            raise KeyboardInterrupt
        kept.append(row)
        return append(self, row)

    monkeypatch.setattr(Store, "append", killed)
    while moments:
        with pytest.raises(KeyboardInterrupt):
            search(joint.run, *fixture_model, request, tmp_path / "b.json")
    assert without_times(search(joint.run, *fixture_model, request, tmp_path / "b.json")) == without_times(unbroken)
    assert len(kept) == unbroken.provenance["read"]["readings"]


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5).map(np.array), st.booleans())
def test_every_point_is_a_method(point, monotone):
    space = Space(SPEC, GROUPS, 1024, 16.0, monotone, {})
    setting = space.decode(point)
    *scales, window, gain = setting
    assert all(1 <= scale <= 16 for scale in scales) and 256 <= window <= 2048 and 0.9 <= gain <= 1.5
    assert not monotone or scales == sorted(scales)
    method = DPE(**space.values(setting) | {"scales": tuple(space.values(setting)["scales"])}).resolve(SPEC, 16384)
    assert [method.scales[first] for first, _ in GROUPS] == scales
    assert str(method.window) in space.method(setting)


def test_setting_in_the_space_comes_back():
    space = Space(SPEC, GROUPS, 1024, 16.0, False, {})
    setting = (1.0, 4.0, 8.0, 1024.0, 1.0)
    assert space.decode(np.array(space.encode(setting))) == setting


def test_what_cannot_be_is_refused(fixture_model, needles, tmp_path, detected):
    for request, out, message in (
        (asking(detected, needles, readings=9), tmp_path / "j.json", "holds 9 readings"),
        (asking(detected, needles), detected, "is where the search starts"),
        (asking(detected, needles), tmp_path / "j.txt", r"must end in \.json"),
    ):
        with pytest.raises(EvaluationError, match=message):
            search(joint.run, *fixture_model, request, out)
    with pytest.raises(EvaluationError, match="unknown objective 'hits'"):
        asking(detected, needles, objective="hits")
    Profile("dpe", Fingerprint.of(SPEC), {"scales": [4.0]}).save(tmp_path / "given.json")
    with pytest.raises(ProfileError, match="was not made by `ropewalk calibrate dpe`"):
        joint.target_of(tmp_path / "given.json")
