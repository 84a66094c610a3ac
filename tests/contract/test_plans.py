"""The plan of every method: the causal triangle once, the distances of the oracle, and the same after a journey."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ropewalk.plan import Plan
from tests.contract.cases import FREQUENCY, NAMES, POSITION, cases
from tests.oracles import distances

lengths = st.integers(1, 49)
every_method = pytest.mark.parametrize("name", NAMES)


@every_method
@given(data=st.data(), T=lengths)
def test_bands_cover_the_causal_triangle_exactly_once(name, data, T) -> None:
    plan = data.draw(cases(name)).plan
    assert torch.equal(plan.coverage(T), torch.ones(T, T, dtype=torch.int64).tril())


@every_method
@given(data=st.data(), T=lengths)
def test_effective_distance_is_that_of_the_oracle(name, data, T) -> None:
    case = data.draw(cases(name))
    for layer in range(case.spec.num_layers):
        ours, expected = case.plan.effective_distance(T, layer), case.distance(T, layer)
        assert ours.dtype == torch.float64
        shape = (case.spec.num_heads, T, T, case.spec.pairs)
        assert all(have in (1, want) for have, want in zip(ours.shape, shape, strict=True))
        torch.testing.assert_close(ours.expand(shape), expected.expand(shape), atol=1e-9, rtol=0)


@every_method
@given(data=st.data(), T=lengths)
def test_effective_distance_is_zero_above_the_diagonal(name, data, T) -> None:
    distance = data.draw(cases(name)).plan.effective_distance(T)
    above = torch.ones(T, T, dtype=torch.bool).triu(1)
    assert not distance[:, above].any()


@pytest.mark.parametrize("name", ["none", *FREQUENCY])
@given(data=st.data(), T=lengths)
def test_frequency_methods_keep_plain_distances(name, data, T) -> None:
    case = data.draw(cases(name))
    assume(not case.retains)
    assert torch.equal(case.plan.effective_distance(T), distances.plain(T))


@pytest.mark.parametrize("name", ["none", *POSITION])
@given(data=st.data())
def test_position_methods_keep_the_table_of_the_model(name, data) -> None:
    case = data.draw(cases(name))
    assert case.plan.table == case.spec.table


@every_method
@given(data=st.data())
def test_gains_are_those_that_were_asked_for(name, data) -> None:
    case = data.draw(cases(name))
    assert case.plan.logit_scale == pytest.approx(case.logit_scale, rel=1e-12)
    positions = torch.arange(300)
    ours, expected = case.plan.query_scale(positions), case.query_scale(positions)
    assert (ours is None) == (expected is None)
    if ours is not None:
        torch.testing.assert_close(ours, expected, atol=0, rtol=1e-12)


@every_method
@given(data=st.data())
def test_plan_takes_the_attention_over_only_when_a_table_is_not_enough(name, data) -> None:
    case = data.draw(cases(name))
    more_than_a_table = name.partition("+")[0] in POSITION or case.log_n or case.logit_scale != 1 or case.retains
    assert case.plan.takes_attention == more_than_a_table


@every_method
@given(data=st.data())
def test_plan_is_pure_hashable_and_survives_pickling(name, data) -> None:
    case = data.draw(cases(name))
    copy = pickle.loads(pickle.dumps(case.plan))
    assert copy == case.plan and hash(copy) == hash(case.plan)
    assert {case.plan: "found"}[case.plan] == "found"


@every_method
@given(data=st.data())
def test_saved_plan_is_the_loaded_plan(name, data, tmp_path_factory) -> None:
    plan = data.draw(cases(name)).plan
    path: Path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    loaded = Plan.load(path)
    assert loaded == plan and hash(loaded) == hash(plan)
    assert np.array_equal(loaded.table.inv_freq.array, plan.table.inv_freq.array)
