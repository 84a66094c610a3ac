"""Methods become one another at the ends of their parameters, with every logit gain and log-n scale off."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ropewalk.methods import METHODS
from ropewalk.plan import Plan
from tests.contract.cases import make_spec, specs

OFF = {"logit_scale": 1.0, "log_n": False}
lengths = st.integers(1, 49)
windows = st.integers(1, 24)
some_factors = st.floats(1, 16)


def plan_of(spec, name, length=256, **fields) -> Plan:
    return METHODS.get(name)(**fields, **OFF).plan(spec, length)


def assert_same(left: Plan, right: Plan, T: int) -> None:
    """Same distances on T tokens, same table, same logits."""
    ours, theirs = torch.broadcast_tensors(left.effective_distance(T), right.effective_distance(T))
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    assert_allclose(left.table.inv_freq.array, right.table.inv_freq.array, rtol=1e-12, atol=0)
    assert left.table.attention_scaling == pytest.approx(right.table.attention_scaling, rel=1e-12)
    assert (left.logit_scale, left.log_n) == (right.logit_scale, right.log_n) == (1.0, None)


@given(spec=specs(), T=lengths, window=windows, group=st.integers(1, 60))
def test_dpe_with_equal_scales_is_self_extend(spec, T, window, group) -> None:
    dpe = plan_of(spec, "dpe", window=window, scales=(float(group),))
    assert_same(dpe, plan_of(spec, "self-extend", window=window, group=group), T)


@given(spec=specs(), T=lengths, window=windows)
def test_self_extend_with_a_group_beyond_the_length_is_rerope(spec, T, window) -> None:
    group = max(T, window + 1)  # a group of at most the window would give the offset w - 1
    assert_same(plan_of(spec, "self-extend", window=window, group=group), plan_of(spec, "rerope", window=window), T)


@given(spec=specs(), T=lengths, window=windows)
def test_leaky_rerope_with_infinite_slope_is_rerope(spec, T, window) -> None:
    leaky = plan_of(spec, "leaky-rerope", window=window, slope=math.inf)
    assert_same(leaky, plan_of(spec, "rerope", window=window), T)


@given(spec=specs(), T=lengths, window=windows, chunk=st.integers(2, 60))
def test_scale_one_shift_beyond_and_chunk_beyond_the_length_are_none(spec, T, window, chunk) -> None:
    none = plan_of(spec, "none")
    assert_same(plan_of(spec, "self-extend", window=window, group=1), none, T)
    assert_same(plan_of(spec, "dpe", window=window, scales=(1.0,) * spec.pairs), none, T)
    assert_same(plan_of(spec, "leaky-rerope", window=window, slope=1.0), none, T)
    assert_same(plan_of(spec, "string", window=window, shift=T), none, T)
    assert_same(plan_of(spec, "string", window=window, shift=window), none, T)
    assert_same(plan_of(spec, "dca", window=1, chunk=max(2, T)), none, T)
    assert_same(plan_of(spec, "dca", window=min(window, chunk), chunk=chunk), none, min(T, chunk))


@given(spec=specs(), T=lengths)
def test_window_beyond_the_length_is_none(spec, T) -> None:
    none, window = plan_of(spec, "none"), min(T, spec.pretrained_length)
    inside = min(T, window)
    for name, fields in {"self-extend": {"group": 5}, "rerope": {}, "leaky-rerope": {"slope": 3.0}}.items():
        assert_same(plan_of(spec, name, window=window, **fields), none, inside)
    assert_same(plan_of(spec, "dpe", window=window, scales=(7.0,)), none, inside)


@pytest.mark.parametrize(
    "name", ["pi", "ntk", "ntk-liu", "yarn", "yarn-paper", "yarn-lambda", "ntk-by-parts", "llama3"]
)
@given(spec=specs())
def test_factor_one_is_none(name, spec) -> None:
    assert_same(plan_of(spec, name, factor=1.0), plan_of(spec, "none"), 9)


@given(spec=specs(), factor=some_factors)
def test_dynamic_ntk_within_the_trained_window_is_none_and_beyond_it_is_ntk(spec, factor) -> None:
    trained = spec.pretrained_length
    assert_same(plan_of(spec, "dynamic-ntk", length=trained, factor=factor), plan_of(spec, "none"), 9)
    grown = plan_of(spec, "dynamic-ntk", length=3 * trained, factor=1.0)
    assert_same(grown, plan_of(spec, "ntk", factor=3.0), 9)


@given(spec=specs(), windows=st.integers(1, 16))
def test_untrained_clex_is_dynamic_ntk_at_twice_the_factor_less_one(spec, windows) -> None:
    """a = 2t - 1; at whole windows, because t is rounded up to them."""
    length = windows * spec.pretrained_length
    assert_same(plan_of(spec, "clex", length=length), plan_of(spec, "dynamic-ntk", length=length, factor=2.0), 9)
    assert_same(plan_of(spec, "clex", length=length), plan_of(spec, "ntk", factor=2.0 * windows - 1), 9)


@given(spec=specs(), factor=some_factors)
def test_longrope_with_equal_factors_is_pi(spec, factor) -> None:
    equal = {"long": (factor,) * spec.pairs, "short": (factor,) * spec.pairs, "attention_factor": 1.0}
    for length in (spec.pretrained_length, 4 * spec.pretrained_length):
        assert_same(plan_of(spec, "longrope", length=length, **equal), plan_of(spec, "pi", factor=factor), 9)


@given(spec=specs(), factor=some_factors)
def test_a_ramp_in_turns_all_on_one_side_is_pi_or_none(spec, factor) -> None:
    turns = spec.pretrained_length  # more than the fastest pair makes: L / 2 pi
    slow, fast = {"low": turns, "high": turns + 1}, {"low": 1e-9, "high": 1e-8}
    for name in ("ntk-by-parts", "llama3"):
        assert_same(plan_of(spec, name, factor=factor, **slow), plan_of(spec, "pi", factor=factor), 9)
        assert_same(plan_of(spec, name, factor=factor, **fast), plan_of(spec, "none"), 9)
    slow, fast = ({"beta_slow": ends["low"], "beta_fast": ends["high"]} for ends in (slow, fast))
    paper = {
        side: plan_of(spec, "yarn-paper", factor=factor, attention_factor=1.0, **ends)
        for side, ends in (("slow", slow), ("fast", fast))
    }
    assert_same(paper["slow"], plan_of(spec, "pi", factor=factor), 9)
    assert_same(paper["fast"], plan_of(spec, "none"), 9)


@pytest.mark.parametrize("name", ["yarn", "yarn-lambda"])
@given(spec=specs(), factor=some_factors)
def test_a_ramp_in_the_index_beyond_the_slowest_pair_is_none(name, spec, factor) -> None:
    turns = [spec.pretrained_length / (2 * math.pi * spec.base ** (1 + i / spec.pairs)) for i in (0.5, 1)]
    yarn = plan_of(spec, name, factor=factor, attention_factor=1.0, beta_slow=turns[1], beta_fast=turns[0])
    assert_same(yarn, plan_of(spec, "none"), 9)


@pytest.mark.parametrize("name", ["yarn", "yarn-lambda"])
@given(spec=specs(), factor=some_factors)
def test_a_ramp_in_the_index_before_the_fastest_pair_is_pi(name, spec, factor) -> None:
    """But for pair 0, at which the ramp of every engine begins: it is always kept."""
    turns = spec.pretrained_length / (2 * math.pi) * 0.999  # the turns of pair 0, just below: c rounds up to 1
    yarn = plan_of(spec, name, factor=factor, attention_factor=1.0, beta_slow=turns, beta_fast=turns + 1)
    pi = plan_of(spec, "pi", factor=factor)
    ours, theirs = yarn.table.inv_freq.array[0, 0], pi.table.inv_freq.array[0, 0]
    assert_allclose(ours[1:], theirs[1:], rtol=1e-12, atol=0)
    assert ours[0] == spec.inv_freq[0]


@given(spec=specs(), factor=some_factors)
def test_llama3_is_ntk_by_parts_between_one_and_four_turns(spec, factor) -> None:
    parts = plan_of(spec, "ntk-by-parts", factor=factor, low=1.0, high=4.0)
    assert_same(plan_of(spec, "llama3", factor=factor), parts, 9)


@given(spec=specs(), factor=some_factors)
def test_yarn_of_the_paper_without_attention_factor_is_ntk_by_parts(spec, factor) -> None:
    paper = plan_of(spec, "yarn-paper", factor=factor, attention_factor=1.0)
    assert_same(paper, plan_of(spec, "ntk-by-parts", factor=factor), 9)


def test_the_target_alone_within_the_trained_window_changes_no_distance() -> None:
    spec = make_spec()
    for name in ("self-extend", "dpe", "leaky-rerope"):
        assert_same(plan_of(spec, name, length=spec.pretrained_length), plan_of(spec, "none"), 49)
