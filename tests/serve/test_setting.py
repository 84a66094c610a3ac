"""The ropewalk entry of a configuration: what it may say, and what an engine makes of it."""

import json

import numpy as np
import pytest
from transformers import AutoConfig

import ropewalk
from ropewalk.errors import MethodError, ModelError, ProfileError, RopewalkError
from ropewalk.grid import Grid
from ropewalk.methods import DPE
from ropewalk.models.heads import own_heads
from ropewalk.models.loading import load_model
from ropewalk.plan import Plan
from ropewalk.rotary import FrequencyTable
from ropewalk.serve.served import TESTED, served
from ropewalk.serve.setting import Setting, setting_of
from tests.architectures import PRETRAINED_LENGTH, SIZES, WORKS
from tests.models.saved import TARGET, save_base


def config_of(family: str = "llama", **overrides):
    return AutoConfig.for_model(family, **SIZES | overrides)


def test_a_configuration_without_the_entry_has_no_setting() -> None:
    assert setting_of(config_of()) is None


def test_a_setting_comes_back_from_json() -> None:
    setting = Setting(method="dpe", target_length=256, keys="unrotated")
    assert Setting.read(json.loads(json.dumps(setting.to_json()))) == setting
    assert Setting.read({"method": "dpe", "target_length": "16k"}).target_length == 16384


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("dpe", "wanted an object"),
        ({}, "either a method or a folder"),
        ({"method": "dpe", "folder": "x"}, "either a method or a folder"),
        ({"method": "dpe", "lenght": 3}, "unknown key 'lenght'"),
        ({"method": 3}, "wanted text"),
        ({"method": "dpe", "target_length": "long"}, "not a length"),
        ({"method": "dpe", "keys": "cold"}, "'rotated' or 'unrotated'"),
        ({"folder": "x", "target_length": 3}, "its own lengths"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_reason(value, word) -> None:
    with pytest.raises(MethodError, match=word):
        Setting.read(value)


def test_the_engines_longest_request_is_the_target_when_none_is_given() -> None:
    assert served(Setting(method="dpe"), config_of(), 256).target_length == 256


@pytest.mark.parametrize(
    ("method", "longest", "word"),
    [
        ("dpe", 300, "--max-model-len 256"),
        ("string", 256, "reaches 64 tokens"),
        ("no-such", 256, "unknown method"),
    ],
)
def test_what_the_engine_could_not_serve_is_refused(method, longest, word) -> None:
    with pytest.raises(MethodError, match=word):
        served(Setting(method=method, target_length=256), config_of(), longest)


@pytest.mark.parametrize("family", ["gpt_neox", "cohere2", "smollm3", "gpt_oss", "deepseek_v3"])
def test_a_model_type_that_was_not_run_is_refused_by_name(family) -> None:
    with pytest.raises(ModelError, match=rf"not tested on {family} models; tested: .*llama.*run this one in transform"):
        served(Setting(method="dpe"), AutoConfig.for_model(family), 256)


@pytest.mark.parametrize("family", [family for family in TESTED if family in WORKS])
def test_kinds_of_layers_are_those_that_are_measured_on_the_model(family) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, "dpe", target_length=PRETRAINED_LENGTH) as extension:
        measured = [layer.kind for layer in extension.census.layers]
        spec = extension.spec
    now = served(Setting(method="none"), model.config, PRETRAINED_LENGTH)
    assert list(now.spec.layer_kinds) == measured
    np.testing.assert_allclose(now.spec.inv_freq, spec.inv_freq, rtol=1e-5)
    assert (now.spec.rotary_dim, now.spec.head_dim) == (spec.rotary_dim, spec.head_dim)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_other_layers_keep_the_rotation_that_is_measured_on_the_model(family) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, "dpe", target_length=PRETRAINED_LENGTH) as extension:
        layers = extension.census.layers
    now = served(Setting(method="dpe"), model.config, PRETRAINED_LENGTH)
    others = [number for number, layer in enumerate(layers) if layer.kind != "full"]
    assert others
    for number in others:
        plan = now.layer_plan(number, layers[number].window)
        np.testing.assert_allclose(plan.table.theta().numpy(), layers[number].spec.inv_freq, rtol=1e-5)
        assert plan.bands[0].region.hi == layers[number].window


@pytest.mark.parametrize(
    ("family", "method", "taken"),
    [("gemma2", "yarn", True), ("gemma2", "none", False), ("gemma3_text", "yarn", False), ("llama", "yarn", False)],
)
def test_a_table_takes_attention_where_layers_with_a_window_share_the_rotary(family, method, taken) -> None:
    now = served(Setting(method=method), WORKS[family]().config, PRETRAINED_LENGTH if method == "none" else 256)
    assert now.takes_attention == taken


@pytest.mark.parametrize("method", ["dpe", "yarn"])
@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("mistral", {"sliding_window": 100}),  # on every layer, beyond the trained length
        ("mistral", {"sliding_window": 40}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 100, "max_window_layers": 1}),
    ],
)
def test_layers_that_never_look_back_to_the_target_are_refused(family, shape, method) -> None:
    config = AutoConfig.for_model(family, **SIZES | shape)
    window = shape["sliding_window"]
    with pytest.raises(ModelError, match=rf"never look back more than {window} tokens .*wanted 256; set"):
        served(Setting(method=method), config, 256)
    config.sliding_window = None
    assert served(Setting(method=method), config, 256).target_length == 256


def test_an_extended_layer_with_a_short_window_is_refused() -> None:
    with pytest.raises(ModelError, match="sliding window"):
        served(Setting(method="dpe"), config_of(), 256).layer_plan(0, 128)


def test_ranks_have_the_heads_of_the_whole_plan() -> None:
    mask = Grid(np.random.default_rng(0).integers(0, 2, (2, 4, 4)).astype(float))
    spec = served(Setting(method="none"), config_of(), 256).spec
    whole = DPE(mask=mask).plan(spec, 256)
    parts = [own_heads(whole, (rank, 2)) for rank in range(2)]
    together = np.concatenate([part.bands[1].query.scale.array for part in parts], 1)
    np.testing.assert_array_equal(together, whole.bands[1].query.scale.array)
    plain = Plan(DPE().plan(spec, 256).bands, FrequencyTable(Grid(spec.inv_freq)))
    assert own_heads(plain, (1, 2)) == plain


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A sidecar of a tiny Llama with DPE, and its base."""
    folder = tmp_path_factory.mktemp("saved")
    base = save_base(folder / "base", "llama")
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dpe:window=16", target_length=TARGET) as extension:
        ropewalk.save(extension, folder / "sidecar")
        return folder / "sidecar", base, extension.plan


def test_a_saved_folder_gives_the_plan_that_was_saved(saved) -> None:
    folder, base, plan = saved
    now = served(Setting(folder=str(folder)), AutoConfig.from_pretrained(base), TARGET)
    assert (now.plan.bands, now.target_length) == (plan.bands, TARGET)
    np.testing.assert_allclose(now.plan.table.theta(), plan.table.theta(), rtol=1e-6)


def test_a_saved_folder_for_another_model_is_refused(saved) -> None:
    folder, _, _ = saved
    with pytest.raises(ProfileError, match="saved for another model"):
        served(Setting(folder=str(folder)), config_of(num_hidden_layers=3), TARGET)


def test_a_folder_that_is_none_is_refused() -> None:
    with pytest.raises(RopewalkError, match="has no"):
        served(Setting(folder="nowhere"), config_of(), TARGET)
