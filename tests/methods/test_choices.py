"""One dial, the target length, fills every field; what cannot be is refused."""

import dataclasses
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import MethodError
from ropewalk.methods import METHODS, Combined, parse
from tests.contract.cases import NAMES, make_spec

SPEC = make_spec(head_dim=64, base=1e5, pretrained_length=2048)
SOURCES = {
    "profile",
    "file",
    "mask",
    "up",
    "down",
    "middle",
    "clock",
    "attention_factor",
}  # fields that no rule fills: sources, and what a rule follows


def named(name: str):
    """The method of this name, with the factors that LongRoPE cannot do without."""
    return parse(name.replace("longrope", f"longrope:long={'/'.join(['4'] * SPEC.pairs)}"))


targets = st.integers(3, 64 * 2048)
training_free = pytest.mark.parametrize("name", NAMES)


def single_methods(method):
    return (method.position, method.frequency) if isinstance(method, Combined) else (method,)


@training_free
@given(target=targets)
def test_the_target_alone_fills_every_field(name, target) -> None:
    for method in single_methods(named(name).resolve(SPEC, target)):
        assert {f.name for f in fields(method) if getattr(method, f.name) is None} <= SOURCES


@training_free
@pytest.mark.parametrize("target", [1, 2])
def test_a_text_of_one_or_two_tokens_has_a_plan(name, target) -> None:
    assert named(name).plan(SPEC, target).coverage(target).sum() == (1, 3)[target - 1]


@training_free
@given(target=targets)
def test_filled_method_serves_its_target_unless_its_reach_is_limited(name, target) -> None:
    method = named(name).resolve(SPEC, target)
    if name == "string" and target > 2 * 2048 - 32:
        with pytest.raises(MethodError, match="reaches"):
            method.check_target(SPEC, target)
    else:
        method.check_target(SPEC, target)
        assert method.reach(SPEC) is None or method.reach(SPEC) >= target


@training_free
@given(target=targets)
def test_filling_a_filled_method_changes_nothing(name, target) -> None:
    method = named(name).resolve(SPEC, target)
    assert method.resolve(SPEC, target) == method
    assert method.plan(SPEC, target) == named(name).plan(SPEC, target)


@training_free
def test_every_filled_field_has_a_reason(name) -> None:
    target = 3 * 1024
    method = named(name)
    why = method.why(SPEC, target)
    filled = method.resolve(SPEC, target)
    wanted = {}
    for one in single_methods(filled):
        prefix = f"{one.name}." if isinstance(filled, Combined) else ""
        values = {f.name: getattr(one, f.name) for f in fields(one)}
        wanted |= {prefix + key: value for key, value in values.items() if value is not None}
    assert {key: value for key, (value, _) in why.items()} == wanted
    assert all(reason for _, reason in why.values())


def test_reason_of_a_given_field_says_so() -> None:
    why = parse("self-extend:group=7").why(SPEC, 8192)
    assert why["group"] == (7, "given")
    assert why["window"][1] != "given"


@pytest.mark.parametrize("name", list(METHODS))
def test_given_fields_win(name) -> None:
    method = replace(named(name), logit_scale=1.5, log_n=True)
    filled = method.resolve(SPEC, 8192)
    assert (filled.logit_scale, filled.log_n) == (1.5, True)
    plan = method.plan(SPEC, 8192)
    assert (plan.logit_scale, plan.log_n) == (1.5, 2048)


@pytest.mark.parametrize("name", list(METHODS))
def test_gains_are_off_where_the_paper_has_none(name) -> None:
    plan = named(name).plan(SPEC, 8192)
    assert (plan.logit_scale != 1) == (name == "string")
    assert (plan.log_n is not None) == (name in ("rerope", "leaky-rerope"))


def test_gains_of_a_pair_belong_to_its_parts() -> None:
    position, frequency = parse("dpe:logit-scale=1.5"), parse("yarn:factor=2")
    plan = Combined(position=position, frequency=replace(frequency, logit_scale=2.0)).plan(SPEC, 8192)
    assert plan.logit_scale == 3.0
    with pytest.raises((MethodError, TypeError)):  # a gain of the pair itself would be a third place for one thing
        Combined(position=position, frequency=frequency, logit_scale=2.0).plan(SPEC, 8192)


@given(target=st.integers(2049, 64 * 2048))
def test_dpe_keeps_fast_pairs_and_doubles_the_factor_for_the_rest(target) -> None:
    scales = np.array(parse("dpe").resolve(SPEC, target).scales)
    fast = SPEC.wavelengths <= 2048 / 6
    assert 0 < fast.sum() < SPEC.pairs
    np.testing.assert_array_equal(scales[fast], 1)
    np.testing.assert_allclose(scales[~fast], 2 * target / 2048)


@pytest.mark.parametrize("name", ["self-extend", "dpe", "leaky-rerope", "string"])
def test_within_the_trained_window_nothing_is_compressed(name) -> None:
    distance = parse(name).plan(SPEC, 300).effective_distance(300)
    expected = np.tril(np.subtract.outer(np.arange(300), np.arange(300)))
    if name == "string":  # its shift may lie anywhere; distances stay within the trained window
        assert distance.max() < 2048
    else:
        assert np.allclose(distance.expand(1, 300, 300, SPEC.pairs).numpy(), expected[None, :, :, None])


@pytest.mark.parametrize("name", ["self-extend", "rerope", "leaky-rerope", "string", "dca"])
@pytest.mark.parametrize("factor", [1, 1.5, 1.9])
def test_filled_method_keeps_every_distance_in_the_trained_window(name, factor) -> None:
    spec = make_spec(pretrained_length=96)
    target = round(96 * factor)
    assert parse(name).plan(spec, target).effective_distance(target).max() < 96


@pytest.mark.parametrize("name", ["self-extend", "rerope", "leaky-rerope", "dca"])
def test_filled_method_keeps_every_distance_in_the_trained_window_at_eight_times(name) -> None:
    spec = make_spec(pretrained_length=64)
    assert parse(name).plan(spec, 512).effective_distance(512).max() < 64


# what cannot be


@pytest.mark.parametrize("text", ["self-extend:window=512", "rerope:window=512", "dpe:window=512", "dca:window=512"])
def test_window_larger_than_the_target_is_refused(text) -> None:
    method = parse(text).resolve(SPEC, 500)
    with pytest.raises(MethodError, match=r"window 512 is larger than the target of 500 tokens"):
        method.check_target(SPEC, 500)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("string", 2 * 2048),
        ("string:shift=1024,window=24", 3 * 1024 - 23),
        ("self-extend:group=2,window=48", 4049),
        ("leaky-rerope:slope=2,window=48", 4049),
        ("string+pi:factor=2", 4 * 2048),
    ],
)
def test_target_beyond_the_reach_is_refused(text, target) -> None:
    method = parse(text).resolve(SPEC, target)
    with pytest.raises(MethodError, match=rf"reaches \d+ tokens on a model trained on \d+, wanted {target}; \w"):
        method.check_target(SPEC, target)


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("string:shift=1024,window=24", 3048),
        ("self-extend:group=2,window=48", 4048),
        ("leaky-rerope:slope=2,window=48", 4048),
    ],
)
def test_reach_is_where_the_farthest_distance_leaves_the_trained_window(text, reach) -> None:
    assert parse(text).resolve(SPEC, 8192).reach(SPEC) == reach
    small = make_spec(pretrained_length=64)
    method = parse(text.replace("1024", "40").replace("window=48", "window=8")).resolve(small, 256)
    reach = method.reach(small)
    plan = method.plan(small, 256)
    assert plan.effective_distance(reach).max() < 64
    assert plan.effective_distance(reach + 2).max() >= 64


@pytest.mark.parametrize(
    "text",
    ["self-extend:window=4k", "rerope:window=4k", "leaky-rerope:window=4k", "leaky-rerope:slope=0.5", "dpe:window=4k",
     "dpe:scales=0.5", "dca:chunk=1", "dca:chunk=8,window=9", "pi:factor=0.5", "yarn:factor=inf", "yarn:factor=nan",
     "yarn:beta_slow=0", "yarn:beta_fast=1,beta_slow=2", "yarn:attention_factor=0", "llama3:low=4,high=4",
     "llama3:low=0", "dynamic-ntk:factor=0.5", "none:logit_scale=0", "none:logit_scale=inf", "none:logit_scale=nan",
     "longrope", "longrope:long=1/2/3"],
)  # fmt: skip
def test_impossible_parameters_are_refused(text) -> None:
    with pytest.raises(MethodError):
        parse(text).resolve(SPEC, 8192)


def test_scales_that_do_not_fit_the_pairs_are_refused() -> None:
    with pytest.raises(MethodError, match=r"3 scales do not fit the model's 32 rotary pairs"):
        parse("dpe:scales=1/2/3").plan(SPEC, 8192)


@pytest.mark.parametrize("target", [0, -5])
def test_target_of_no_token_is_refused(target) -> None:
    with pytest.raises(MethodError, match="at least 1 token"):
        parse("pi").resolve(SPEC, target)


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS.get(name.rpartition("+")[2]).kind == "frequency"])
def test_table_on_an_already_scaled_checkpoint_is_refused_unless_asked_for(name) -> None:
    scaled = dataclasses.replace(SPEC, scaling="llama3", attention_scaling=1.2)
    with pytest.raises(MethodError, match=r"already carries a 'llama3' table.*stack=true"):
        named(name).resolve(scaled, 8192)
    method = named(name)
    frequency = replace(single_methods(method)[-1], stack=True)
    method = replace(method, frequency=frequency) if isinstance(method, Combined) else frequency
    plain = named(name).plan(SPEC, 8192).table
    assert method.plan(scaled, 8192).table.attention_scaling == pytest.approx(1.2 * plain.attention_scaling)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS.get(name).kind == "position"])
def test_position_methods_work_on_an_already_scaled_checkpoint(name) -> None:
    scaled = dataclasses.replace(SPEC, scaling="llama3")
    assert parse(name).plan(scaled, 4000).table == scaled.table
