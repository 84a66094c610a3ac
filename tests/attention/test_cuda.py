"""The backends of CUDA on CUDA, against the float64 reference there."""

import pytest
import torch

from ropewalk.attention import BACKENDS
from ropewalk.attention.rotated import RotatedKeys
from ropewalk.methods import parse
from tests.attention.test_gradients import METHODS
from tests.contract.cases import make_spec
from tests.contract.test_backends import like, make_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
BACKEND_NAMES = ("varlen", "varlen-tail", "flash", "flash-tail", "flex")
SPEC = make_spec(pretrained_length=2048, head_dim=128, num_heads=8, num_kv_heads=2)
TOTAL = 1500
every_backend = pytest.mark.parametrize("backend", BACKEND_NAMES)
every_name = pytest.mark.parametrize("name", METHODS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
NEAR = {torch.float16: 6e-3, torch.bfloat16: 4e-2}  # of outputs of unit variance: rotated operands are rounded


def plan_of(name):
    return parse(METHODS[name]).plan(SPEC, 2048)


def inputs_of(dtype, *, total=TOTAL, new=TOTAL, batch=2):
    inputs = make_inputs(SPEC, total=total, new=new, batch=batch)
    return like(inputs, **{x: getattr(inputs, x).to("cuda", dtype) for x in ("query", "key", "value")})


def runnable(backend, plan, inputs, *, grad=False):
    """The backend; skips with its own reason."""
    found = BACKENDS.get(backend)
    reason = found.unsupported(plan, device=inputs.query.device, dtype=inputs.query.dtype, grad=grad)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    return found


def assert_is_reference(found, inputs, plan) -> None:
    output, lse = BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)
    near = NEAR[inputs.query.dtype]
    torch.testing.assert_close(found[0].double(), output.double(), atol=near, rtol=near)
    torch.testing.assert_close(found[1].double(), lse.double(), atol=near, rtol=near)


@pytest.mark.parametrize("new", [TOTAL, 333, 2, 1])
@every_dtype
@every_name
@every_backend
def test_output_and_logsumexp_are_those_of_the_reference(backend, name, dtype, new) -> None:
    inputs, plan = inputs_of(dtype, new=new), plan_of(name)
    assert_is_reference(runnable(backend, plan, inputs).attend(inputs, plan, SPEC, 0), inputs, plan)


@pytest.mark.parametrize("new", [TOTAL, 1])
@every_name
@every_backend
def test_padded_rows_are_the_rows_alone(backend, name, new) -> None:
    inputs, plan, rows = inputs_of(torch.bfloat16, new=new), plan_of(name), ((100, TOTAL), (1200, TOTAL))
    output, lse = runnable(backend, plan, inputs).attend(like(inputs, rows=rows), plan, SPEC, 0)
    for row, (first, last) in enumerate(rows):
        alone = {x: getattr(inputs, x)[row, None, :, first:last] for x in ("key", "value")}
        query = inputs.query[row, None, :, max(0, first - (TOTAL - new)) :]
        found = (x[row, None, :, -query.shape[2] :] for x in (output, lse))
        assert_is_reference(tuple(found), like(inputs, query=query, **alone), plan)


@every_name
@every_backend
def test_steps_over_a_cache_are_the_reference(backend, name) -> None:
    whole, plan = inputs_of(torch.bfloat16), plan_of(name)
    carrier = runnable(backend, plan, whole)
    held = RotatedKeys(whole.key[:, :, :-3], 1, plan, spec=SPEC, layer=0, origins=[0, 0], tables=carrier.tables)
    for stop in range(TOTAL - 2, TOTAL + 1):
        held.append(whole.key[:, :, stop - 1 : stop])
        part = {"key": whole.key[:, :, :stop], "value": whole.value[:, :, :stop]}
        inputs = like(whole, query=whole.query[:, :, stop - 1 : stop], **part)
        given = like(inputs, rotated=held.part(slice(None), slice(0, stop)))
        assert_is_reference(carrier.attend(given, plan, SPEC, 0), inputs, plan)


@every_name
@pytest.mark.parametrize("sinks", [False, True], ids=["plain", "sinks"])
@pytest.mark.parametrize("backend", ["varlen", "flash", "flex"])
def test_gradients_are_those_of_the_reference(backend, sinks, name) -> None:
    """By the root of the mean square, relative: what rounding moves."""
    inputs, plan = inputs_of(torch.bfloat16, new=700), plan_of(name)
    inputs = like(inputs, sinks=torch.linspace(-1, 2, 8, device="cuda") if sinks else None)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]

    def gradients(carrier):
        output, _ = carrier.attend(inputs, plan, SPEC, 0)
        return torch.autograd.grad(output.double().sin().sum(), leaves)

    found = gradients(runnable(backend, plan, inputs, grad=True))
    for left, right in zip(found, gradients(BACKENDS.get("reference")), strict=True):
        off = (left.double() - right.double()).square().mean().sqrt() / right.double().square().mean().sqrt()
        assert off < 2e-2
