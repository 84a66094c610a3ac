"""A plan as data: frozen, and refused when its file is missing, malformed or altered."""

import dataclasses
import json
import math
from importlib import resources

import numpy as np
import pytest
import safetensors.numpy
import torch

from ropewalk.errors import ProfileError
from ropewalk.evaluate.fingerprint import plan_sha256
from ropewalk.grid import INLINE, Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec
from tests.contract.cases import make_spec


@pytest.fixture
def spec():
    return make_spec(head_dim=128, num_heads=16, num_layers=6)


@pytest.fixture
def large_plan(spec):
    """DPE with a mask per layer and head, whose grids are too large for JSON."""
    mask = np.random.default_rng(0).random((spec.num_layers, spec.num_heads, spec.pairs)) < 0.5
    plan = DPE(window=8, scales=(1.0, 2.5, 4.0, math.inf), mask=Grid(mask)).plan(spec, 256)
    assert plan.bands[1].key.scale.array.size > INLINE
    return plan


def test_large_grids_go_to_a_safetensors_file_and_come_back(large_plan, tmp_path) -> None:
    path = tmp_path / "plan.json"
    large_plan.save(path)
    assert path.stat().st_size < 10_000
    arrays = safetensors.numpy.load_file(tmp_path / "plan.safetensors")
    assert set(arrays) == {large_plan.bands[1].key.scale.digest, large_plan.bands[1].query.offset.digest}
    loaded = Plan.load(path)
    assert loaded == large_plan
    for ours, theirs in zip(loaded.bands, large_plan.bands, strict=True):
        assert np.array_equal(ours.query.offset.array, theirs.query.offset.array)


def test_large_grid_of_any_memory_order_comes_back(spec, tmp_path) -> None:
    scale = np.random.default_rng(1).integers(1, 5, (spec.pairs, spec.num_heads, spec.num_layers)).T
    plan = DPE(window=8, scales=(4.0,), mask=Grid(scale > 2)).plan(spec, 256)
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert np.array_equal(loaded.bands[1].key.scale.array, plan.bands[1].key.scale.array)


def test_causal_plans_are_written_and_hashed_as_before_regions_had_sides() -> None:
    """The rows that come with the package, measured before: `eval --known` takes them by the hash of their plan."""
    inv_freq = 1 / 100_000 ** (torch.arange(0, 64, 2).float() / 64)
    spec = RotarySpec(64, 64, 1e5, 8192, 9, 3, 30, tuple(inv_freq.double().tolist()))  # of SmolLM2-135M
    packed = resources.files("ropewalk").joinpath("data", "measured", "smollm2-needle-32k.jsonl").read_text()
    rows = [row for row in map(json.loads, packed.splitlines()) if not row["key"]["control"]]
    for name in ("none", "self-extend", "dca"):
        row = next(row for row in rows if row["key"]["resolved"].startswith(f"{name}:"))
        plan = parse(row["key"]["resolved"]).plan(spec, row["target_length"])
        assert plan_sha256(plan) == row["key"]["plan_sha256"]
        assert Plan.from_json(plan.to_json({}), {}) == plan


def test_region_of_an_unknown_side_is_refused(spec) -> None:
    document = DPE(window=8, scales=(4.0,)).plan(spec, 256).to_json({})
    document["bands"][0]["region"]["side"] = "left"
    with pytest.raises(ProfileError, match="past, future, both; got 'left'"):
        Plan.from_json(document, {})


def test_altered_array_is_refused(large_plan, tmp_path) -> None:
    large_plan.save(tmp_path / "plan.json")
    file = tmp_path / "plan.safetensors"
    arrays = safetensors.numpy.load_file(file)
    arrays[large_plan.bands[1].key.scale.digest][3, 2, 1] += 1
    safetensors.numpy.save_file(arrays, file)
    with pytest.raises(ProfileError, match="hash"):
        Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_missing_or_cut_array_file_is_refused(large_plan, tmp_path, harm) -> None:
    large_plan.save(tmp_path / "plan.json")
    file = tmp_path / "plan.safetensors"
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ProfileError):
        Plan.load(tmp_path / "plan.json")


def test_missing_file_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ProfileError, match="nowhere"):
        Plan.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 99}', b"\xff\xfe\x00"])
def test_malformed_file_is_refused(tmp_path, content) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError):
        Plan.load(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [("bands", 3), ("bands", [{}]), ("table", None), ("table", {"inv_freq": "x", "attention_scaling": 1.0})],
)
def test_plan_with_a_wrong_part_is_refused(spec, part, value) -> None:
    document = DPE().plan(spec, 256).to_json({}) | {part: value}
    with pytest.raises(ProfileError):
        Plan.from_json(json.loads(json.dumps(document)), {})


def test_plan_with_an_impossible_table_is_refused(spec) -> None:
    document = DPE().plan(spec, 256).to_json({})
    document["table"]["attention_scaling"] = -1.0
    with pytest.raises(ProfileError):
        Plan.from_json(document, {})


def test_plan_and_its_grids_are_frozen(spec) -> None:
    plan = DPE().plan(spec, 256)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.logit_scale = 2.0
    with pytest.raises(AttributeError):
        plan.bands[0].key.scale.array = np.ones(1)
    with pytest.raises(ValueError, match="read-only"):
        plan.bands[1].key.scale.array[0] = 2.0


def test_grid_does_not_follow_the_array_that_it_was_made_of() -> None:
    array = np.ones(4)
    grid = Grid(array)
    array[0] = 7
    assert grid == Grid(np.ones(4))


@pytest.mark.parametrize("values", [[], [math.nan], np.ones((1, 1, 1, 1))])
def test_grid_of_nothing_or_nan_or_four_axes_is_refused(values) -> None:
    with pytest.raises(ValueError, match="grid"):
        Grid(values)
