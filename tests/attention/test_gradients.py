"""Gradients of fused bands: those of autograd through the dense float64 reference, in memory linear in the length."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ropewalk.attention import BACKENDS, Inputs
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Plan
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, like, make_inputs

METHODS = {
    "dpe": "dpe:window=130,scales=1/2/6/9",
    "self-extend": "self-extend:group=4,window=130",
    "string": "string:shift=300,window=20",
    "dca": "dca:chunk=200,window=50",
    "rerope": "rerope:window=150",
}
LENGTH = 500
SPEC = make_spec(pretrained_length=1024, head_dim=32, num_heads=4, num_kv_heads=2)


def plan_of(name: str, **changes) -> Plan:
    return replace(parse(METHODS[name]).plan(SPEC, 1024), **changes)


def leaves_of(inputs: Inputs) -> list[torch.Tensor]:
    return [inputs.query, inputs.key, inputs.value]


def gradients(backend: str, inputs: Inputs, plan: Plan, *, through_lse: bool = False) -> list[torch.Tensor]:
    """Of an uneven sum of the output, and of the logsumexp where asked."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves_of(inputs)]
    query, key, value = leaves
    output, lse = BACKENDS.get(backend).attend(like(inputs, query=query, key=key, value=value), plan, SPEC, 0)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
    total = (output.double() * weights).sum()
    if through_lse:
        total = total + (lse.double() * weights[..., 0]).sum()
    return list(torch.autograd.grad(total, leaves))


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest difference over the largest number."""
    return float((left.double() - right.double()).abs().max() / right.double().abs().max())


@pytest.mark.parametrize("through_lse", [False, True], ids=["output", "logsumexp-too"])
@pytest.mark.parametrize("new", [LENGTH, 77])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_those_of_the_reference(name, new, through_lse) -> None:
    inputs = make_inputs(SPEC, total=LENGTH, new=new, batch=2, sinks=torch.linspace(-1, 2, 4))
    plan = plan_of(name, log_n=64)
    wanted = gradients("reference", inputs, plan, through_lse=through_lse)
    found = gradients("blockwise", cast(inputs, torch.float32), plan, through_lse=through_lse)
    for left, right in zip(found, wanted, strict=True):
        assert error(left, right) < 1e-5


def test_gradients_of_masks_per_head_are_those_of_the_reference() -> None:
    mask = Grid(np.random.default_rng(0).random((1, 4, 16)) < 0.5)
    plan = DPE(window=130, scales=(3.0, 1.0, 7.5, 9.0), mask=mask).plan(SPEC, 1024)
    inputs = make_inputs(SPEC, total=LENGTH, new=LENGTH, width=20)
    found = gradients("blockwise", cast(inputs, torch.float32), plan)
    for left, right in zip(found, gradients("reference", inputs, plan), strict=True):
        assert error(left, right) < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_gradients_in_bfloat16_are_off_by_roundings(name) -> None:
    inputs = cast(make_inputs(SPEC, total=LENGTH, new=LENGTH), torch.bfloat16)
    wanted = gradients("reference", cast(inputs, torch.float64), plan_of(name))
    for left, right in zip(gradients("blockwise", inputs, plan_of(name)), wanted, strict=True):
        assert left.dtype == torch.bfloat16 and error(left, right) < 2e-2


def test_checkpoints_change_no_gradient() -> None:
    inputs, plan = cast(make_inputs(SPEC, total=LENGTH, new=LENGTH), torch.float32), plan_of("dpe")

    def attend(query, key, value):
        return BACKENDS.get("blockwise").attend(like(inputs, query=query, key=key, value=value), plan, SPEC, 0)[0]

    def found(run):
        leaves = [x.clone().requires_grad_() for x in leaves_of(inputs)]
        return torch.autograd.grad(run(*leaves).sin().sum(), leaves)

    again = found(lambda *leaves: checkpoint(attend, *leaves, use_reentrant=False))
    for left, right in zip(again, found(attend), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", METHODS)
def test_backward_keeps_no_weights(name) -> None:
    """Inputs, output and logsumexp are kept, whatever the length: nothing of the size queries x keys."""
    kept: list[torch.Tensor] = []
    inputs = cast(make_inputs(SPEC, total=LENGTH, new=LENGTH), torch.float32)
    leaves = [x.requires_grad_() for x in leaves_of(inputs)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        BACKENDS.get("blockwise").attend(inputs, plan_of(name), SPEC, 0)
    rows = inputs.query.shape[1] * LENGTH
    assert sum(x.numel() for x in kept) == sum(x.numel() for x in leaves) + inputs.query.numel() + rows


def test_gradients_reach_queries_over_keys_that_are_held_rotated() -> None:
    """A query that is trained over a cache that is not: the keys are constants."""
    plan = plan_of("string")
    inputs = cast(make_inputs(SPEC, total=LENGTH, new=40), torch.float32)
    backend = BACKENDS.get("blockwise")
    (to,) = {band.key for band in plan.bands}
    held = {to: backend.tables.turn(inputs.key, to, plan, 0, range(LENGTH), SPEC)}
    found = []
    for given in (inputs, like(inputs, key=torch.full_like(inputs.key, torch.nan), rotated=held)):
        query = inputs.query.clone().requires_grad_()
        output, _ = backend.attend(like(given, query=query), plan, SPEC, 0)
        found.append(torch.autograd.grad(output.sin().sum(), query)[0])
    assert error(*found) < 1e-6


def test_values_of_another_dtype_are_taken_as_autocast_gives_them() -> None:
    inputs, plan = cast(make_inputs(SPEC, total=90, new=90), torch.float32), plan_of("self-extend")
    halved = like(inputs, value=inputs.value.bfloat16())
    found, wanted = (gradients("blockwise", x, plan) for x in (halved, like(inputs, value=halved.value.float())))
    assert found[2].dtype == torch.bfloat16
    for left, right in zip(found, wanted, strict=True):
        assert error(left, right) < 4e-3
