"""A position method over a table: one target length never compresses twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import MethodError
from ropewalk.methods import METHODS, parse
from tests.contract.cases import make_spec

SPEC = make_spec(head_dim=64, base=1e5, pretrained_length=2048)
POSITION = [name for name in METHODS if METHODS.get(name).kind == "position"]
targets = st.integers(2049, 32 * 2048)


@given(target=targets, factor=st.sampled_from([1.0, 1.5, 2.0, 4.0]))
def test_factor_of_the_table_times_that_of_the_positions_is_the_extension(target, factor) -> None:
    method = parse(f"dpe+yarn:factor={factor}").resolve(SPEC, target)
    assert method.frequency.factor == factor
    slow = max(method.position.scales)
    left = slow / 2 if slow > 1 else 1.0  # DPE doubles what it is left
    assert factor * left == pytest.approx(max(factor, target / 2048), rel=1e-3)


@pytest.mark.parametrize("name", POSITION)
@given(target=targets)
def test_table_without_a_factor_takes_a_part_and_leaves_the_rest(name, target) -> None:
    method = parse(f"{name}+yarn").resolve(SPEC, target)
    assert 1 <= method.frequency.factor <= max(target / 2048, 1.1)
    if name != "string":
        assert method.frequency.factor == pytest.approx((target / 2048) ** 0.5)


@pytest.mark.parametrize("name", POSITION)
@given(target=targets, factor=st.sampled_from([1.0, 2.0, 3.0]))
def test_positions_are_chosen_as_on_a_model_with_the_stretched_window(name, target, factor) -> None:
    table = parse(f"yarn:factor={factor}").resolve(SPEC, target).table(SPEC, target)
    stretched = replace(SPEC, pretrained_length=round(2048 * factor), inv_freq=tuple(table.inv_freq.array[0, 0]))
    alone = parse(name).resolve(stretched, target)
    assert parse(f"{name}+yarn:factor={factor}").resolve(SPEC, target).position == alone


def test_factor_one_is_the_position_method_alone() -> None:
    for name in POSITION:
        pair, alone = parse(f"{name}+pi:factor=1").plan(SPEC, 4000), parse(name).plan(SPEC, 4000)
        assert pair == alone


def test_log_n_counts_from_the_window_that_the_model_was_trained_on() -> None:
    assert parse("rerope+yarn:factor=4").plan(SPEC, 16384).log_n == 2048


def test_pair_depends_on_the_length_when_its_table_does() -> None:
    assert parse("dpe+dynamic-ntk").length_dependent
    assert not parse("dpe+yarn").length_dependent


def test_string_with_a_table_reaches_beyond_twice_the_window() -> None:
    target = 8 * 2048
    method = parse("string+yarn").resolve(SPEC, target)
    method.check_target(SPEC, target)
    assert method.reach(SPEC) >= target


def test_string_over_a_small_factor_is_refused_with_the_factor_named() -> None:
    method = parse("string+yarn:factor=2").resolve(SPEC, 16384)
    with pytest.raises(MethodError, match=r"raise the factor of yarn|over yarn:factor=2"):
        method.check_target(SPEC, 16384)


def test_table_is_that_of_the_frequency_method_alone() -> None:
    for name in ("pi", "ntk", "yarn", "llama3"):
        pair = parse(f"dpe+{name}:factor=3").plan(SPEC, 16384)
        np.testing.assert_array_equal(
            pair.table.inv_freq.array, parse(f"{name}:factor=3").plan(SPEC, 16384).table.inv_freq.array
        )


def test_citation_names_both_papers() -> None:
    bibtex = parse("dpe+yarn").bibtex
    assert "lu2025dpe" in bibtex and "peng2024yarn" in bibtex
