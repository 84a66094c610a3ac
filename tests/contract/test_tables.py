"""The table of every frequency method is that of the oracle, and of transformers where it has the type."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ropewalk.methods import METHODS
from ropewalk.rotary import RotarySpec
from tests.contract.cases import FREQUENCY, PAIRS, cases, make_spec
from tests.oracles import frequencies

EXACT = 1e-12
SOLVED = 1e-10  # an equation solved by two integrators, in two times
FLOAT32 = 1e-6  # transformers computes in float32, and a model's own table has float32 values

# (head_dim, rotary_dim, base, trained length): Llama 2, Llama 3, Qwen2.5, SmolLM2, GLM's half, Phi-2's 0.4, an odd one
MODELS = {
    "llama2": (128, 128, 1e4, 4096),
    "llama3": (128, 128, 5e5, 8192),
    "qwen2.5": (128, 128, 1e6, 32768),
    "smollm2": (64, 64, 1e5, 8192),
    "half rotary": (128, 64, 1e4, 8192),
    "tail rotary": (80, 32, 1e4, 2048),
    "odd": (24, 24, 1e4, 301),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def real_spec(model: tuple[int, int, float, int]) -> RotarySpec:
    """A model of real size, whose frequencies have float32 values as in real models."""
    head_dim, rotary_dim, base, pretrained = model
    spec = make_spec(head_dim=head_dim, rotary_dim=rotary_dim, base=base, pretrained_length=pretrained)
    theta = np.array(spec.inv_freq, dtype=np.float32).tolist()
    return RotarySpec(**(vars(spec) | {"inv_freq": tuple(theta), "rotary_start": head_dim - rotary_dim}))


def assert_table(method: str, spec: RotarySpec, length: int, expected: frequencies.Table, **fields) -> None:
    table = METHODS.get(method)(**fields).plan(spec, length).table
    assert_allclose(table.inv_freq.array, expected[0][None, None], rtol=FLOAT32, atol=0)
    assert table.attention_scaling == pytest.approx(expected[1], rel=FLOAT32)


@pytest.mark.parametrize("name", [*FREQUENCY, *PAIRS])
@given(data=st.data())
def test_table_is_that_of_the_oracle(name, data) -> None:
    case = data.draw(cases(name))
    table = case.plan.table
    rtol = SOLVED if "clex" in name else EXACT
    assert_allclose(table.inv_freq.array, case.table[0][None, None], rtol=rtol, atol=0)
    assert table.attention_scaling == pytest.approx(case.table[1], rel=EXACT)


@models
@pytest.mark.parametrize("factor", [1.0, 2.0, 5.5, 16.0])
@pytest.mark.parametrize("name", ["pi", "yarn", "llama3", "dynamic-ntk"])
def test_table_is_that_of_transformers(name, factor, model) -> None:
    spec = real_spec(model)
    _, rotary_dim, base, trained = model
    type_ = {"pi": "linear", "dynamic-ntk": "dynamic"}.get(name, name)
    ramp = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if name == "llama3" else {}
    for length in (1, trained - 1, trained, trained + 1, 7 * trained + 5):
        parameters = {"rope_type": type_, "factor": factor, **ramp}
        theirs = frequencies.transformers_table(
            parameters, head_dim=rotary_dim, base=base, length=trained, seq_len=length
        )
        assert_table(name, spec, length, theirs, factor=factor)


@models
def test_yarn_with_its_own_ramp_and_attention_factor_is_that_of_transformers(model) -> None:
    _, rotary_dim, base, trained = model
    ramp = {"beta_fast": 20.0, "beta_slow": 2.0, "attention_factor": 1.1}
    parameters = {"rope_type": "yarn", "factor": 4.0, **ramp}
    theirs = frequencies.transformers_table(parameters, head_dim=rotary_dim, base=base, length=trained)
    assert_table("yarn", real_spec(model), 4 * trained, theirs, factor=4.0, **ramp)


@models
def test_llama3_with_its_own_ends_is_that_of_transformers(model) -> None:
    _, rotary_dim, base, trained = model
    parameters = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 2.0, "high_freq_factor": 9.0}
    theirs = frequencies.transformers_table(parameters, head_dim=rotary_dim, base=base, length=trained)
    assert_table("llama3", real_spec(model), 4 * trained, theirs, factor=8.0, low=2.0, high=9.0)


@models
@pytest.mark.parametrize("beyond", [-5, 0, 1, 1000])
def test_longrope_is_that_of_transformers_on_both_sides_of_the_original_length(model, beyond) -> None:
    _, rotary_dim, base, trained = model
    rng = np.random.default_rng(0)
    short, long = (1 + rng.random(rotary_dim // 2) * size for size in (0.2, 9))
    lists = {"short_factor": short.tolist(), "long_factor": long.tolist()}
    parameters = {"rope_type": "longrope", "factor": 8.0, **lists}
    length = trained + beyond
    theirs = frequencies.transformers_table(parameters, head_dim=rotary_dim, base=base, length=trained, seq_len=length)
    fields = {"short": tuple(short), "long": tuple(long), "factor": 8.0, "original": trained}
    assert_table("longrope", real_spec(model), length, theirs, **fields)


def test_longrope_takes_the_short_factors_up_to_the_original_length_and_the_long_ones_beyond() -> None:
    spec = make_spec()
    method = METHODS.get("longrope")(short=(1.0,) * 8, long=(4.0,) * 8, original=50)
    theta = np.array(spec.inv_freq)
    assert_allclose(method.plan(spec, 50).table.inv_freq.array[0, 0], theta, rtol=EXACT)
    assert_allclose(method.plan(spec, 51).table.inv_freq.array[0, 0], theta / 4, rtol=EXACT)


@pytest.mark.parametrize("name", FREQUENCY)
def test_only_methods_that_say_so_depend_on_the_length(name) -> None:
    spec = make_spec()
    fields = {} if name == "clex" else {"factor": 2.0}
    if name == "longrope":
        fields |= {"long": (2.0,) * 8, "short": (1.0,) * 8}
    method = METHODS.get(name)(**fields)
    tables = {method.plan(spec, length).table for length in (spec.pretrained_length, 5 * spec.pretrained_length)}
    assert (len(tables) > 1) == method.length_dependent
