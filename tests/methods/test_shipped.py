"""Shipped profiles: they are what was published, fit their models, and are found by themselves."""

from pathlib import Path

import numpy as np
import pytest

from ropewalk.cli.profiles import method_of
from ropewalk.errors import MethodError, ProfileError
from ropewalk.methods import DPE, METHODS, parse
from ropewalk.models.method_files import pack, unpack
from ropewalk.profile import Fingerprint, Profile, find_profile, shipped, shipped_for
from ropewalk.rotary import RotarySpec, default_inv_freq

LLAMA_3 = "dpe-llama-3-8b-instruct"


def spec_of(mark: Fingerprint) -> RotarySpec:
    """A model of this fingerprint."""
    shape = {name: getattr(mark, name) for name in Fingerprint.__dataclass_fields__}
    return RotarySpec(**shape, inv_freq=tuple(default_inv_freq(mark.base, mark.rotary_dim).tolist()))


@pytest.mark.parametrize("name", shipped())
def test_shipped_method_resolves_on_its_model_with_the_published_values(name) -> None:
    profile = shipped()[name]
    spec = spec_of(profile.fingerprint)
    method = parse(method_of(name, profile)).resolve(spec, profile.target_length)
    method.check_target(spec, profile.target_length)
    part = getattr(method, "position", method)
    assert part.name == profile.kind in METHODS.names()
    for field, value in profile.values.items():
        have = getattr(part, field)
        assert (list(have) if isinstance(value, list) else have) == value
    assert "trials" in profile.provenance or profile.provenance["source"].startswith("arXiv")


def test_released_settings_of_dpe_are_the_authors_own() -> None:
    scales = {name: one.values["scales"] for name, one in shipped().items() if one.kind == "dpe"}
    assert scales[LLAMA_3] == [2, 8, 2, 8, 32, 32, 32, 4]
    assert scales[f"{LLAMA_3}-readme"] == [4, 4, 2, 16, 32, 32, 16, 128]
    assert scales["dpe-mistral-7b-instruct-v0.2"] == [4, 16, 2, 16, 32, 16, 16, 2]
    assert scales["dpe-llama-3.1-8b-instruct"] == [2, 32, 32, 2, 2, 2, 2, 1]
    assert scales["dpe-qwen2.5-7b-instruct"] == [2, 16, 8, 8, 32, 8, 2, 4]


def test_known_model_gets_its_profile_by_itself_and_is_told() -> None:
    spec = spec_of(shipped()[LLAMA_3].fingerprint)
    assert DPE().natural_length(spec) == 131072
    reason = DPE().why(spec, 131072)["scales"]
    assert reason[0] == (2, 8, 2, 8, 32, 32, 32, 4) and f"shipped profile {LLAMA_3}, made for 131072" in reason[1]
    assert DPE(scales=(4.0,)).resolve(spec, 131072).scales == (4.0,)
    off = DPE(shipped=False)
    assert str(off) == "dpe:shipped=false" and off.natural_length(spec) == 8192
    assert set(off.resolve(spec, 131072).scales) == {1.0, 32.0} and "wavelength" in off.why(spec, 131072)["scales"][1]
    assert str(off.resolve(spec, 131072)) == str(DPE(scales=off.resolve(spec, 131072).scales).resolve(spec, 131072))
    # Detected for another target, the scales say nothing about this one.
    assert "shipped" not in DPE().why(spec, 16384)["scales"][1]


def test_joined_table_leaves_the_shipped_scales_aside() -> None:
    """They were found without a table, which takes a part of the factor already."""
    spec = spec_of(shipped()[LLAMA_3].fingerprint)
    joined = parse("dpe+yarn")
    assert set(joined.resolve(spec, 131072).position.scales) == {1.0, 8.0}
    assert "wavelength" in joined.why(spec, 131072)["dpe.scales"][1]


def test_unknown_model_gets_the_rule() -> None:
    spec = RotarySpec(64, 64, 1e5, 8192, 9, 3, 30, tuple(default_inv_freq(1e5, 64).tolist()))
    if shipped_for("dpe", spec) is None:
        assert DPE().natural_length(spec) == 8192 and "wavelength" in DPE().why(spec, 16384)["scales"][1]
    other = RotarySpec(64, 64, 1e5, 8192, 9, 3, 29, tuple(default_inv_freq(1e5, 64).tolist()))
    assert shipped_for("dpe", other) is None


def test_shipped_profile_is_named_like_a_file_and_refuses_another_model(tmp_path, monkeypatch) -> None:
    method = parse(f"dpe:profile={LLAMA_3}-readme")
    spec = spec_of(shipped()[LLAMA_3].fingerprint)
    assert method.resolve(spec, 131072).scales == (4, 4, 2, 16, 32, 32, 16, 128)
    assert method.natural_length(spec) == 131072
    with pytest.raises(ProfileError, match=r"made on another model: 32 layers.*this model has 28 layers"):
        method.resolve(spec_of(shipped()["dpe-qwen2.5-7b-instruct"].fingerprint), 131072)
    with pytest.raises(ProfileError, match=rf"did you mean '{LLAMA_3}"):
        parse("dpe:profile=dpe-llama-3-8b-instrukt").resolve(spec, 131072)
    with pytest.raises(ProfileError, match="for 'string', wanted one for 'dpe'"):
        parse("dpe:profile=string-llama-3.1-8b").resolve(spec, 131072)
    # A file that lies there comes first.
    monkeypatch.chdir(tmp_path)
    Profile("dpe", Fingerprint.of(spec), {"scales": [3.0]}).save(Path(LLAMA_3))
    assert find_profile(Path(LLAMA_3)).values == {"scales": [3.0]}


def test_method_with_a_shipped_profile_is_packed_by_name(tmp_path) -> None:
    spec = spec_of(shipped()[LLAMA_3].fingerprint)
    method = parse(f"dpe:profile={LLAMA_3}").resolve(spec, 131072)
    arrays: dict[str, np.ndarray] = {}
    text = pack(method, tmp_path, arrays)
    assert list(tmp_path.iterdir()) == [] and unpack(text, tmp_path, arrays).resolve(spec, 131072) == method


def test_target_of_a_profile_is_a_number_or_nothing() -> None:
    spec = spec_of(shipped()[LLAMA_3].fingerprint)
    assert Profile("dpe", Fingerprint.of(spec), {}, {}, {"target_length": "16k"}).target_length is None
    with pytest.raises(MethodError, match="at least 1 token"):
        DPE().resolve(spec, 0)
