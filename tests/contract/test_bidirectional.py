"""Plans of encoders, whose tokens see both sides: p(m, n) = -p(n, m), and every backend carries them out."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ropewalk.attention import Inputs
from ropewalk.attention.rotated import unsupported
from ropewalk.methods import SelfExtend
from ropewalk.plan import Plan
from tests.contract.cases import FEW, NAMES, POSITION, Case, cases, make_spec
from tests.contract.test_backends import RUNNABLE, RUNS, cast, every_method, make_inputs, problems, run
from tests.oracles.attention import attend
from tests.tolerances import assert_near

BOTH_SIDES = [name for name in RUNNABLE if name != "varlen"]  # which refuses such plans
every_backend = pytest.mark.parametrize("backend", BOTH_SIDES)
every_run = pytest.mark.parametrize(
    ("backend", "dtype"),
    [run for run in RUNS if run[0] in BOTH_SIDES],
    ids=lambda x: str(x).removeprefix("torch."),
)


@st.composite
def encoders(draw, name: str) -> Case:
    """A case of a method on a model whose tokens see both sides."""
    case = draw(cases(name))
    return replace(case, spec=replace(case.spec, bidirectional=True))


def antisymmetric(case: Case, T: int, layer: int = 0) -> Tensor:
    """The oracle's causal distances below the diagonal, their negatives above it."""
    causal = case.distance(T, layer)
    return causal - causal.transpose(1, 2)


def oracle(inputs: Inputs, case: Case, layer: int) -> tuple[Tensor, Tensor]:
    total, new = inputs.key.shape[2], inputs.query.shape[2]
    n = torch.arange(total) if inputs.positions is None else inputs.positions
    m, length = n[total - new :], int(n[-1]) + 1
    scale = max(1.0, math.log(length) / math.log(case.spec.pretrained_length)) if case.log_n else 1.0
    return attend(
        inputs.query,
        inputs.key,
        inputs.value,
        torch.from_numpy(case.table[0]),
        antisymmetric(case, length, layer)[:, m][:, :, n],
        scaling=inputs.scaling * case.logit_scale,
        layout=case.spec.layout,
        visible=torch.ones(1, new, total, dtype=torch.bool),
        rotary_start=case.spec.rotary_start,
        attention_scaling=case.table[1],
        query_scale=torch.full((new,), scale, dtype=torch.float64),
        softcap=inputs.softcap,
        sinks=inputs.sinks,
    )


@every_method
@given(data=st.data(), T=st.integers(1, 49))
def test_bands_cover_the_square_exactly_once(name, data, T) -> None:
    plan = data.draw(encoders(name)).plan
    assert plan.bidirectional
    assert torch.equal(plan.coverage(T), torch.ones(T, T, dtype=torch.int64))


@every_method
@given(data=st.data(), T=st.integers(1, 49))
def test_effective_distance_is_that_of_the_oracle_on_both_sides(name, data, T) -> None:
    case = data.draw(encoders(name))
    for layer in range(case.spec.num_layers):
        ours, expected = torch.broadcast_tensors(case.plan.effective_distance(T, layer), antisymmetric(case, T, layer))
        torch.testing.assert_close(ours, expected, atol=1e-9, rtol=0)


@every_run
@every_method
@FEW
@given(data=st.data(), block=st.sampled_from((3, 7, 16)))
def test_output_and_logsumexp_are_those_of_the_oracle(backend, dtype, name, data, block) -> None:
    case = data.draw(encoders(name))
    inputs = cast(data.draw(problems(case.spec)), dtype)
    layer = data.draw(st.integers(0, case.spec.num_layers - 1))
    output, lse = run(backend, inputs, case.plan, case.spec, layer, block)
    expected, expected_lse = oracle(inputs, case, layer)
    assert output.dtype == dtype and output.shape == expected.shape and lse.shape == expected_lse.shape
    assert_near(output, expected, backend, dtype)
    assert_near(lse, expected_lse, backend, dtype)


@every_backend
@pytest.mark.parametrize("name", POSITION)
@FEW
@given(data=st.data())
def test_gradients_are_those_of_the_oracle(backend, name, data) -> None:
    case = data.draw(encoders(name))
    inputs = data.draw(problems(case.spec))
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]

    def gradients(result):
        output, lse = result
        weights = torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype)
        return torch.autograd.grad((output * weights).sum() + lse.sin().sum(), leaves)

    expected = gradients(oracle(inputs, case, 0))
    for left, right in zip(gradients(run(backend, inputs, case.plan, case.spec)), expected, strict=True):
        assert_near(left, right, "gradient", torch.float64)


@pytest.mark.parametrize("backend", [name for name in BOTH_SIDES if name != "reference"])
@pytest.mark.parametrize("window", [1030, 65])
def test_a_long_text_at_the_real_block_size_is_that_of_the_reference(backend, window) -> None:
    spec = make_spec(pretrained_length=2048, bidirectional=True)
    plan = SelfExtend(group=4, window=window).plan(spec, 4096)
    inputs = cast(make_inputs(spec, total=2307, new=2307), torch.float32)
    ours = run(backend, inputs, plan, spec, block=1024)
    theirs = run("reference", inputs, plan, spec)
    for left, right in zip(ours, theirs, strict=True):
        assert_near(left, right, backend, torch.float32)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_mirrored_plan_is_saved_and_takes_attention_over_like_the_causal_one(name, data, tmp_path_factory) -> None:
    case = data.draw(encoders(name))
    plan, causal = case.plan, replace(case, spec=replace(case.spec, bidirectional=False)).plan
    assert plan == causal.mirrored() != causal
    assert plan.takes_attention == causal.takes_attention
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    assert Plan.load(path) == plan


def test_keys_of_a_mirrored_plan_are_not_held_rotated() -> None:
    plan = SelfExtend(group=4, window=8).plan(make_spec(), 128)
    assert unsupported(plan) is None
    assert unsupported(plan.mirrored()) == "tokens see later ones"
