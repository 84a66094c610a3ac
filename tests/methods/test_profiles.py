"""DPE from a calibrated profile, and every way in which a profile can be wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods import LongRoPE, parse
from ropewalk.profile import Fingerprint, Profile
from tests.contract.cases import make_spec
from tests.oracles import distances

SPEC = make_spec()
MASK = np.random.default_rng(0).random((SPEC.num_layers, SPEC.num_heads, SPEC.pairs)) < 0.5
SCALES = [1.0, 2.5, 4.0, 8.0]


@pytest.fixture
def path(tmp_path):
    """A good profile of SPEC, with scales, window, gain and mask."""
    values = {"scales": SCALES, "window": 6, "logit_scale": 1.25}
    profile = Profile("dpe", Fingerprint.of(SPEC), values, {"mask": MASK}, {"model": "tiny", "seed": 0})
    profile.save(tmp_path / "profile.json")
    return tmp_path / "profile.json"


def change(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_saved_profile_is_the_loaded_profile(path) -> None:
    profile = Profile.load(path)
    assert (profile.kind, profile.fingerprint) == ("dpe", Fingerprint.of(SPEC))
    assert profile.values == {"scales": SCALES, "window": 6, "logit_scale": 1.25}
    assert profile.provenance == {"model": "tiny", "seed": 0}
    assert profile.arrays["mask"].dtype == np.bool_ and np.array_equal(profile.arrays["mask"], MASK)


def test_profile_fills_the_method_and_says_so(path) -> None:
    method = parse(f"dpe:profile={path}").resolve(SPEC, 256)
    assert (method.window, method.scales, method.logit_scale) == (6, tuple(SCALES), 1.25)
    assert method.mask == Grid(MASK)
    reasons = parse(f"dpe:profile={path}").why(SPEC, 256)
    assert all(str(path) in reasons[name][1] for name in ("window", "scales", "logit_scale", "mask"))


def test_plan_from_a_profile_is_that_of_the_oracle(path) -> None:
    plan = parse(f"dpe:profile={path}").plan(SPEC, 256)
    per_pair = np.repeat(SCALES, SPEC.pairs // len(SCALES))
    for layer in range(SPEC.num_layers):
        scales = np.where(MASK[layer], per_pair, 1.0)
        expected = distances.dpe(31, plan.table.theta().new_tensor(scales), 6)
        assert np.allclose(plan.effective_distance(31, layer), expected)


def test_what_is_given_beside_a_profile_wins(path) -> None:
    method = parse(f"dpe:profile={path},window=9,logit_scale=1").resolve(SPEC, 256)
    assert (method.window, method.logit_scale, method.scales) == (9, 1.0, tuple(SCALES))


def test_method_with_a_profile_can_be_written_and_read_back_once_filled(path) -> None:
    method = parse(f"dpe:profile={path}").resolve(SPEC, 256)
    again = parse(str(method))
    assert again.resolve(SPEC, 256) == method


def test_profile_serves_the_same_model_under_a_table(path) -> None:
    method = parse(f"dpe:profile={path}+yarn:factor=2").resolve(SPEC, 256)
    assert method.position.scales == tuple(SCALES)


@pytest.mark.parametrize(
    "other", [{"num_layers": 3}, {"num_heads": 8}, {"base": 5e5}, {"pretrained_length": 128}, {"rotary_dim": 8}]
)
def test_profile_of_another_model_is_refused(path, other) -> None:
    with pytest.raises(ProfileError, match="made on another model"):
        parse(f"dpe:profile={path}").resolve(replace(SPEC, **other), 256)


def test_missing_profile_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere\.json"):
        parse(f"dpe:profile={tmp_path / 'nowhere.json'}").resolve(SPEC, 256)


def test_folder_in_place_of_a_profile_is_refused(tmp_path) -> None:
    with pytest.raises(ProfileError):
        Profile.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b'{"version": 1}', b"\xff\xfe\x00"])
def test_malformed_profile_is_refused(path, content) -> None:
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="profile"):
        Profile.load(path)


@pytest.mark.parametrize(
    "changes",
    [{"version": 99}, {"kind": "longrope"}, {"fingerprint": {}}, {"fingerprint": 3}, {"arrays": ["mask", "more"]}],
    ids=str,
)
def test_profile_with_a_wrong_part_is_refused(path, changes) -> None:
    change(path, **changes)
    with pytest.raises(ProfileError):
        parse(f"dpe:profile={path}").resolve(SPEC, 256)


@pytest.mark.parametrize(
    "values", [{"scales": 3}, {"scales": ["x"]}, {"window": "six"}, {"window": None}, {"logit_scale": []}, []], ids=str
)
def test_profile_with_a_value_of_the_wrong_type_is_refused(path, values) -> None:
    change(path, values=values)
    with pytest.raises((ProfileError, MethodError)):
        parse(f"dpe:profile={path}").resolve(SPEC, 256)


def test_profile_without_its_arrays_is_refused(path) -> None:
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(ProfileError):
        Profile.load(path)


@pytest.mark.parametrize("shape", [(3, 4, 8), (2, 3, 8), (2, 4, 4), (4, 8, 8)])
def test_mask_that_does_not_fit_the_model_is_refused(shape) -> None:
    method = replace(parse("dpe"), mask=Grid(np.ones(shape)))
    with pytest.raises(MethodError, match="mask has shape"):
        method.resolve(SPEC, 256)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"long_factor": 3}', '{"long_factor": ["x"]}', "{}"])
def test_wrong_file_of_longrope_factors_is_refused(tmp_path, content) -> None:
    path = tmp_path / "factors.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MethodError, match="longrope"):
        LongRoPE(file=path).resolve(SPEC, 256)


def test_longrope_reads_its_factors_from_the_configuration_of_a_model(tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"long_factor": [4.0] * 8, "short_factor": [1.5] * 8, "rope_type": "longrope"}))
    method = parse(f"longrope:file={path}").resolve(SPEC, 256)
    assert (method.long, method.short) == ((4.0,) * 8, (1.5,) * 8)
