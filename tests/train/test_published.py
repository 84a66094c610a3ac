"""A folder as the authors of CLEX saved it becomes a method that equals their equation."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_allclose

from ropewalk.errors import MethodError, ProfileError
from ropewalk.methods import parse
from ropewalk.train.published import read_published
from tests.contract.cases import make_spec
from tests.oracles import clex

SPEC = make_spec(head_dim=16, base=1e6, pretrained_length=64)  # not the 10,000 of the authors' nu
PREFIX = "model.clex_layer.proj_func."


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    up, down = torch.rand(8, 32) / 8, torch.randn(32, 8) * 0.02
    return {f"{PREFIX}ode_up_proj": up, f"{PREFIX}ode_down_proj": down, "model.norm.weight": torch.ones(3)}


def config(folder, **changes) -> None:
    scaling = {"type": "clex", "max_factor": 16, "param_factor": 2, "time_dt": 0.01, "act": "silu"} | changes
    scaling = {key: value for key, value in scaling.items() if value is not None}
    (folder / "config.json").write_text(json.dumps({"rope_scaling": scaling, "log_scale": True}))


def write(folder, weights, kind: str) -> None:
    """One shard for each matrix."""
    for number, name in enumerate(sorted(weights)):
        if kind == "bin":
            torch.save({name: weights[name]}, folder / f"pytorch_model-{number}.bin")
        else:
            safetensors.torch.save_file({name: weights[name]}, folder / f"model-{number}.safetensors")


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_published_network_equals_the_equation_of_the_authors(tmp_path, weights, kind, dtype) -> None:
    config(tmp_path)
    weights = {name: one.to(dtype) for name, one in weights.items()}
    write(tmp_path, weights, kind)
    method = read_published(tmp_path, SPEC)
    up, down = (weights[f"{PREFIX}ode_{name}_proj"].double() for name in ("up", "down"))
    for length, time in ((200, 4.0), (1000, 16.0)):
        known = clex.frequencies(torch.tensor(SPEC.inv_freq, dtype=torch.float64), up, down, time, activation="silu")
        assert_allclose(method.plan(SPEC, length).table.inv_freq.array[0, 0], known.numpy(), rtol=1e-9)
    assert (method.max_factor, method.log_n) == (16, True)
    method.to_profile(SPEC).save(tmp_path / "network.json")
    assert parse(f"clex:profile={tmp_path / 'network.json'}").plan(SPEC, 500) == method.plan(SPEC, 500)


def test_other_pickles_in_the_folder_are_left_alone(tmp_path, weights) -> None:
    """Trainer leaves its arguments beside the weights, which torch does not load as data."""
    config(tmp_path)
    write(tmp_path, weights, "bin")
    torch.save(np.random.default_rng, tmp_path / "training_args.bin")
    assert read_published(tmp_path, SPEC).max_factor == 16


def test_activation_that_the_configuration_does_not_say_has_to_be_given(tmp_path, weights) -> None:
    config(tmp_path, act=None)
    write(tmp_path, weights, "safetensors")
    with pytest.raises(ProfileError, match=r"does not say its activation"):
        read_published(tmp_path, SPEC)
    assert read_published(tmp_path, SPEC, activation="tanh").activation == "tanh"


def test_folder_that_is_no_clex_checkpoint_is_refused(tmp_path, weights) -> None:
    with pytest.raises(ProfileError, match=r"no config\.json"):
        read_published(tmp_path, SPEC)
    config(tmp_path, type="linear")
    with pytest.raises(ProfileError, match="with 'linear' scaling, wanted 'clex'"):
        read_published(tmp_path, SPEC)
    config(tmp_path)
    with pytest.raises(ProfileError, match="no weights that end in"):
        read_published(tmp_path, SPEC)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ProfileError, match="cannot read the weights"):
        read_published(tmp_path, SPEC)


def test_network_of_another_model_is_refused(tmp_path, weights) -> None:
    config(tmp_path)
    write(tmp_path, weights, "safetensors")
    with pytest.raises(MethodError, match=r"is for another model: .*16 rotary pairs"):
        read_published(tmp_path, make_spec(head_dim=32))


def test_pickle_that_would_run_code_is_refused(tmp_path) -> None:
    config(tmp_path)
    torch.save({f"{PREFIX}ode_up_proj": np.random.default_rng}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ProfileError, match="cannot read the weights"):
        read_published(tmp_path, SPEC)
