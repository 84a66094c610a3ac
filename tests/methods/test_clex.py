"""CLEX at inference: the table of every length against another integrator, and everything that the profile brings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX, parse
from ropewalk.profile import Fingerprint, Profile
from tests.contract.cases import make_spec
from tests.oracles import clex

SPEC = make_spec(head_dim=32, base=5e5, pretrained_length=64)
OPEN = {"gate": math.inf}


def weights(seed: int = 0, hidden: int = 24, size: float = 0.02) -> dict[str, Grid]:
    rng = np.random.default_rng(seed)
    up = rng.uniform(-1, 1, (SPEC.pairs, hidden)) / SPEC.pairs
    return {"up": Grid(up), "down": Grid(rng.normal(0, size, (hidden, SPEC.pairs)))}


def residual(seed: int = 0, hidden: int = 12) -> dict[str, Grid]:
    rng = np.random.default_rng(seed)
    inner = {"middle": rng.normal(0, 0.5, (hidden, hidden)), "clock": rng.normal(0, 0.5, (2, hidden))}
    return weights(seed, hidden, 0.1) | {name: Grid(one) for name, one in inner.items()}


def theta(method, length: int) -> np.ndarray:
    return method.plan(SPEC, length).table.inv_freq.array[0, 0]


def known(method: CLEX, time: float, **named) -> np.ndarray:
    given = {name: torch.from_numpy(grid.array[0].copy()) for name, grid in method.weights.items()}
    return clex.frequencies(torch.tensor(SPEC.inv_freq, dtype=torch.float64), time=time, **given, **named).numpy()


@pytest.mark.parametrize("activation", ["tanh", "silu"])
@pytest.mark.parametrize("base", [10000.0, 5e5])
def test_table_is_that_of_torchdiffeq_in_the_time_of_the_authors(activation, base) -> None:
    method = CLEX(**weights(), **OPEN, activation=activation, feature_base=base)
    for length, time in ((65, 2), (200, 4), (1000, 16)):
        assert_allclose(theta(method, length), known(method, time, base=base, activation=activation), rtol=1e-10)
    assert np.abs(np.log(theta(method, 1000) / theta(CLEX(), 1000))).max() > 0.1  # the network counts


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_table_of_the_residual_network_is_that_of_torchdiffeq(activation) -> None:
    method = CLEX(**residual(), network="residual", gate=3.0, activation=activation)
    fast = np.flatnonzero(SPEC.pretrained_length * np.array(SPEC.inv_freq) / (2 * math.pi) >= 3)
    for length, time in ((65, 2), (200, 4), (1000, 16)):
        wanted = known(method, time, activation=activation, closed=frozenset(fast.tolist()))
        assert_allclose(theta(method, length), wanted, rtol=1e-10)
    assert np.abs(np.log(theta(method, 1000) / theta(CLEX(), 1000))).max() > 0.1


def test_table_is_that_of_the_solver_and_the_step_of_the_authors() -> None:
    method = CLEX(**weights(), **OPEN, feature_base=10000.0)
    assert_allclose(theta(method, 4 * 64), known(method, 4.0, solver="rk4", step=0.01), rtol=1e-7)


def test_closed_pairs_keep_their_ntk_frequency_and_slow_ones_move() -> None:
    method = CLEX(**weights(), gate=3.0)
    turns = SPEC.pretrained_length * np.array(SPEC.inv_freq) / (2 * math.pi)
    fast = turns >= 3
    assert 0 < fast.sum() < SPEC.pairs
    trained, untrained = theta(method, 500), theta(CLEX(), 500)
    assert_allclose(trained[fast], untrained[fast], rtol=1e-13)
    assert (np.abs(trained[~fast] / untrained[~fast] - 1) > 1e-3).all()
    closed = frozenset(np.flatnonzero(fast).tolist())
    assert_allclose(trained, known(method, 8.0, base=5e5, closed=closed), rtol=1e-10)


def test_texts_of_one_bucket_share_a_table_and_short_ones_have_the_models_own() -> None:
    method = CLEX(**weights(), max_factor=16)
    assert method.plan(SPEC, 64).table == method.plan(SPEC, 1).table == SPEC.table
    assert method.plan(SPEC, 129).table == method.plan(SPEC, 192).table != method.plan(SPEC, 193).table
    assert method.plan(SPEC, 16 * 64).table == method.plan(SPEC, 99 * 64).table  # T of the network, as the authors


def test_without_whole_every_length_has_a_table_of_its_own() -> None:
    method = CLEX(**weights(), **OPEN, whole=False)
    assert_allclose(theta(method, 96), known(method, 1.5, base=5e5), rtol=1e-10)
    assert theta(method, 96)[-1] > theta(method, 97)[-1]


def test_untrained_is_dynamic_ntk_with_factor_two() -> None:
    dynamic = parse("dynamic-ntk:factor=2")
    for windows in (1, 2, 5, 16):
        assert_allclose(theta(CLEX(), 64 * windows), theta(dynamic, 64 * windows), rtol=1e-12)
        assert_allclose(theta(CLEX(network="residual"), 64 * windows), theta(dynamic, 64 * windows), rtol=1e-12)
    assert_allclose(theta(CLEX(whole=False), 150), theta(dynamic, 150), rtol=1e-12)


def test_changed_weight_makes_another_method_and_another_table() -> None:
    method = CLEX(**weights())
    before = theta(method, 300)
    changed = np.array(method.down.array[0])
    changed[0] += 1e-3
    other = replace(method, down=Grid(changed))
    assert other != method
    assert np.abs(theta(other, 300) / before - 1).max() > 1e-5
    assert (theta(method, 300) == before).all()


# the profile


@pytest.fixture
def path(tmp_path):
    method = CLEX(**weights(), gate=math.inf, activation="silu", feature_base=10000.0, max_factor=8, log_n=True)
    file = tmp_path / "network.json"
    method.to_profile(SPEC, steps=300).save(file)
    return file


def test_profile_brings_the_network_back(path) -> None:
    given = CLEX(**weights(), gate=math.inf, activation="silu", feature_base=10000.0, max_factor=8, log_n=True)
    read = parse(f"clex:profile={path}")
    assert read.plan(SPEC, 500) == given.plan(SPEC, 500)
    assert read.plan(SPEC, 500).log_n == 64
    filled = read.resolve(SPEC, 500)
    assert parse(str(filled)).resolve(SPEC, 500) == filled
    assert Profile.load(path).provenance == {"steps": 300}


def test_profile_of_a_residual_network_brings_all_its_weights(tmp_path) -> None:
    given = CLEX(**residual(), network="residual", **OPEN).resolve(SPEC, 500)
    file = tmp_path / "network.json"
    given.to_profile(SPEC).save(file)
    read = parse(f"clex:profile={file}").resolve(SPEC, 500)
    assert (read.network, read.weights) == ("residual", given.weights)
    assert read.plan(SPEC, 500) == given.plan(SPEC, 500) != CLEX().plan(SPEC, 500)
    assert parse(str(read)).resolve(SPEC, 500) == read
    profile = Profile.load(file)
    replace(profile, arrays={name: one for name, one in profile.arrays.items() if name != "clock"}).save(file)
    with pytest.raises(ProfileError, match=r"misses \['clock'\]"):
        parse(f"clex:profile={file}").resolve(SPEC, 256)


def test_profile_from_before_there_was_a_second_network_is_read(path) -> None:
    profile = Profile.load(path)
    assert "network" not in profile.values  # it was saved as it was given
    assert parse(f"clex:profile={path}").resolve(SPEC, 256).network == "projection"
    replace(profile, values=profile.values | {"network": "perceptron"}).save(path)
    with pytest.raises(MethodError, match="network must be projection or residual, got perceptron"):
        parse(f"clex:profile={path}").resolve(SPEC, 256)


def test_what_is_given_beside_the_profile_wins(path) -> None:
    filled = parse(f"clex:profile={path},max_factor=32,gate=2").resolve(SPEC, 500)
    assert (filled.max_factor, filled.gate, filled.activation) == (32, 2.0, "silu")


def test_target_beyond_the_longest_text_of_the_network_is_refused(path) -> None:
    method = parse(f"clex:profile={path}").resolve(SPEC, 513)
    with pytest.raises(
        MethodError, match=r"reaches 512 tokens on a model trained on 64, wanted 513; give a larger max"
    ):
        method.check_target(SPEC, 513)
    method.check_target(SPEC, 512)
    assert parse(f"clex:profile={path}").natural_length(SPEC) == 512
    assert CLEX().natural_length(SPEC) == 64


def test_profile_of_another_method_or_model_or_without_a_part_is_refused(path) -> None:
    with pytest.raises(ProfileError, match="made on another model"):
        parse(f"clex:profile={path}").resolve(make_spec(), 256)
    profile = Profile.load(path)
    replace(profile, kind="dpe").save(path)
    with pytest.raises(ProfileError, match="profile for 'dpe', wanted one for 'clex'"):
        parse(f"clex:profile={path}").resolve(SPEC, 256)
    replace(profile, arrays={"up": profile.arrays["up"]}).save(path)
    with pytest.raises(ProfileError, match=r"misses \['down'\]"):
        parse(f"clex:profile={path}").resolve(SPEC, 256)
    replace(profile, values=profile.values | {"gate": "wide"}).save(path)
    with pytest.raises(ProfileError, match="wrong type"):
        parse(f"clex:profile={path}").resolve(SPEC, 256)


@pytest.mark.parametrize("shapes", [((8, 4), (4, 8)), ((16, 4), (5, 16)), ((16, 4), (16, 4))])
def test_weights_that_do_not_fit_the_model_are_refused(shapes) -> None:
    up, down = (Grid(np.zeros(shape)) for shape in shapes)
    with pytest.raises(
        MethodError, match=r"model's 16 rotary pairs; wanted up \[pairs, hidden\], down \[hidden, pairs\]"
    ):
        CLEX(up=up, down=down).resolve(SPEC, 256)


@pytest.mark.parametrize(("name", "shape"), [("middle", (12, 11)), ("clock", (3, 12))])
def test_weights_of_the_residual_network_that_do_not_fit_are_refused(name, shape) -> None:
    given = residual() | {name: Grid(np.zeros(shape))}
    with pytest.raises(MethodError, match=rf"{name} of shape \({shape[0]}, {shape[1]}\).*clock \[2, hidden\]"):
        CLEX(**given, network="residual").resolve(SPEC, 256)


def test_half_a_network_is_refused_and_an_untrained_one_is_not_saved() -> None:
    with pytest.raises(MethodError, match="a projection network has up and down: give all of them, or none"):
        CLEX(up=weights()["up"]).resolve(SPEC, 256)
    with pytest.raises(MethodError, match="a residual network has up and down and middle and clock"):
        CLEX(**weights(), network="residual").resolve(SPEC, 256)
    with pytest.raises(MethodError, match="no weights to save"):
        CLEX().resolve(SPEC, 256).to_profile(SPEC)


def test_network_that_runs_away_is_refused() -> None:
    """A rate that grows with what it has moved: no table, and never a silent one."""
    up, down = np.zeros((16, 1)), np.zeros((1, 16))
    up[5], down[0, 5] = -1.0, -1e3
    method = CLEX(up=Grid(up), down=Grid(down), activation="silu", **OPEN)
    with pytest.raises(MethodError, match=r"ln theta does not settle at t = 16; .*too large"):
        method.plan(SPEC, 1000)


def test_model_with_pairs_that_do_not_turn_is_refused() -> None:
    with pytest.raises(MethodError, match="pairs of this model do not turn"):
        CLEX().resolve(replace(SPEC, inv_freq=(*SPEC.inv_freq[:-1], 0.0)), 256)


def test_fingerprint_is_that_of_the_model(path) -> None:
    assert Profile.load(path).fingerprint == Fingerprint.of(SPEC)
