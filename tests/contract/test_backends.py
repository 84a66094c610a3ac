"""Every backend on every method: output, logsumexp and gradients equal an oracle that never rotates to a position."""

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.attention import BACKENDS, Inputs, blockwise, choose
from ropewalk.errors import BackendError
from ropewalk.grid import Grid
from ropewalk.methods import DPE, SelfExtend
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec
from tests.attention.varlen_emulator import emulated
from tests.contract.cases import FEW, NAMES, Case, cases, make_spec
from tests.oracles import distances, frequencies
from tests.oracles.attention import attend
from tests.tolerances import TOLERANCES, assert_near

BLOCKS = (3, 7, 16)  # instead of 1,024, so that short texts have block edges

ELSEWHERE = ("flash", "flash-tail", "flex", "varlen-tail")  # what they do not share with varlen is in tests/attention
RUNNABLE = {name: emulated().get(name, BACKENDS.get(name)) for name in BACKENDS if name not in ELSEWHERE}

every_backend = pytest.mark.parametrize("backend", list(RUNNABLE))
# The reference computes in float64 whatever it is given, so one dtype is enough there.
RUNS = [(b, dtype) for b, dtype in TOLERANCES if b in RUNNABLE and (b != "reference" or dtype == torch.float64)]
every_run = pytest.mark.parametrize(("backend", "dtype"), RUNS, ids=lambda x: str(x).removeprefix("torch."))
every_method = pytest.mark.parametrize("name", NAMES)


def make_inputs(
    spec: RotarySpec, *, total: int, new: int, batch: int = 1, width: int | None = None, seed: int = 0, **others
) -> Inputs:
    """Standard normal queries [B, H, T, D], keys [B, K, S, D] and values [B, K, S, width], float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(heads, length, size):
        return torch.randn(batch, heads, length, size, generator=generator, dtype=torch.float64)

    return Inputs(
        query=normal(spec.num_heads, new, spec.head_dim),
        key=normal(spec.num_kv_heads, total, spec.head_dim),
        value=normal(spec.num_kv_heads, total, width or spec.head_dim),
        scaling=spec.head_dim**-0.5,
        **others,
    )


def like(inputs: Inputs, **changes) -> Inputs:
    return Inputs(**(vars(inputs) | changes))


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return like(inputs, **{name: getattr(inputs, name).to(dtype) for name in ("query", "key", "value")})


@st.composite
def problems(draw, spec: RotarySpec) -> Inputs:
    """The last T of S tokens, with or without gaps between positions, sinks, a soft cap and values of another width."""
    total = draw(st.integers(1, 41))
    positions = sinks = None
    if draw(st.integers(0, 3)) == 0:
        gaps = draw(st.lists(st.integers(1, 4), min_size=total, max_size=total))
        positions = torch.tensor(gaps).cumsum(0) - 1
    if draw(st.booleans()):
        sinks = torch.linspace(-2, 3, spec.num_heads, dtype=torch.float64)
    return make_inputs(
        spec,
        total=total,
        new=draw(st.just(total) | st.integers(1, total)),
        batch=draw(st.integers(1, 2)),
        width=draw(st.sampled_from([spec.head_dim, 5, spec.head_dim, spec.head_dim + 4])),
        seed=draw(st.integers(0, 2**16)),
        positions=positions,
        sinks=sinks,
        softcap=draw(st.sampled_from([None, None, None, 3.0])),
    )


def fit(inputs: Inputs, backend: str) -> Inputs:
    """These inputs, or what is left of them without the features that some backends refuse."""
    if RUNNABLE[backend].refuses(inputs) is None:
        return inputs
    return like(inputs, positions=None, softcap=None, value=inputs.value[..., : inputs.query.shape[3]])


def oracle(inputs: Inputs, case: Case, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    total = inputs.key.shape[2]
    n = torch.arange(total) if inputs.positions is None else inputs.positions
    m = n[total - inputs.query.shape[2] :]
    return attend(
        inputs.query,
        inputs.key,
        inputs.value,
        torch.from_numpy(case.table[0]),
        case.distance(int(n[-1]) + 1, layer)[:, m][:, :, n],
        scaling=inputs.scaling * case.logit_scale,
        layout=case.spec.layout,
        visible=(n[None, :] <= m[:, None])[None],
        rotary_start=case.spec.rotary_start,
        attention_scaling=case.table[1],
        query_scale=case.query_scale(m),
        softcap=inputs.softcap,
        sinks=inputs.sinks,
    )


def run(backend: str, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int = 0, block: int = 7):
    """Attention with small blocks, and with a dense path that holds few logits at once; skips where none can run."""
    query = inputs.query
    carrier = RUNNABLE[backend]
    reason = carrier.unsupported(plan, device=query.device, dtype=query.dtype, grad=inputs.needs_grad)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    small = inputs.query.shape[0] * inputs.query.shape[1] * inputs.key.shape[2] * block
    with patch.object(blockwise, "BLOCK", block), patch.object(blockwise, "DENSE_NUMBERS", small):
        return carrier.attend(inputs, plan, spec, layer)


@every_run
@every_method
@FEW
@given(data=st.data(), block=st.sampled_from(BLOCKS))
def test_output_and_logsumexp_are_those_of_the_oracle(backend, dtype, name, data, block) -> None:
    case = data.draw(cases(name))
    inputs = fit(cast(data.draw(problems(case.spec)), dtype), backend)
    layer = data.draw(st.integers(0, case.spec.num_layers - 1))
    output, lse = run(backend, inputs, case.plan, case.spec, layer, block)
    expected, expected_lse = oracle(inputs, case, layer)
    assert output.dtype == dtype and output.shape == expected.shape and lse.shape == expected_lse.shape
    assert_near(output, expected, backend, dtype)
    assert_near(lse, expected_lse, backend, dtype)


@every_backend
@every_method
@FEW
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_gradients_are_those_of_the_oracle(backend, name, data, dtype) -> None:
    case = data.draw(cases(name))
    inputs = fit(cast(data.draw(problems(case.spec)), dtype), backend)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]

    def gradients(result):
        output, lse = result
        weights = torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype)
        return torch.autograd.grad((output * weights).sum() + lse.sin().sum(), leaves)

    expected = gradients(oracle(inputs, case, 0))
    for left, right in zip(gradients(run(backend, inputs, case.plan, case.spec)), expected, strict=True):
        assert_near(left, right, "gradient", dtype)


@every_backend
@every_method
@FEW
@given(data=st.data(), cuts=st.lists(st.integers(1, 16), max_size=4, unique=True))
def test_prefill_is_chunked_prefill_is_token_by_token(backend, name, data, cuts) -> None:
    case = data.draw(cases(name))
    T = 17
    whole = make_inputs(case.spec, total=T, new=T, sinks=torch.linspace(-1, 1, case.spec.num_heads))
    whole = cast(whole, torch.float32)
    prefill, prefill_lse = run(backend, whole, case.plan, case.spec, block=16)
    for borders in ([0, *sorted(cuts), T], range(T + 1)):
        for start, stop in pairwise(borders):
            part = like(
                whole,
                query=whole.query[:, :, start:stop],
                key=whole.key[:, :, :stop],
                value=whole.value[:, :, :stop],
            )
            output, lse = run(backend, part, case.plan, case.spec, block=16)
            assert_near(output, prefill[:, :, start:stop], backend, torch.float32)
            assert_near(lse, prefill_lse[:, :, start:stop], backend, torch.float32)


@every_backend
@every_method
@FEW
@given(data=st.data())
def test_batch_is_its_rows(backend, name, data) -> None:
    case = data.draw(cases(name))
    batch = cast(make_inputs(case.spec, total=29, new=23, batch=3), torch.float32)
    output, lse = run(backend, batch, case.plan, case.spec)
    for row in range(3):
        one = slice(row, row + 1)
        alone = like(batch, query=batch.query[one], key=batch.key[one], value=batch.value[one])
        alone_output, alone_lse = run(backend, alone, case.plan, case.spec)
        assert_near(output[one], alone_output, backend, torch.float32)
        assert_near(lse[one], alone_lse, backend, torch.float32)


@every_run
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_mask_per_head_works_on_grouped_keys(backend, dtype, num_kv_heads) -> None:
    """Each query head then turns the keys of its group in its own way, so keys have more heads than values."""
    spec = make_spec(num_kv_heads=num_kv_heads)
    mask = torch.rand(2, 4, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    method = DPE(window=5, scales=(4.0,), mask=Grid(mask.numpy()))
    scales = torch.where(mask, 4.0, 1.0)
    table = (frequencies.plain(16, 1e4), 1.0)
    case = Case(spec, method, 256, lambda T, layer: distances.dpe(T, scales[layer], 5), table)
    inputs = cast(make_inputs(spec, total=29, new=23, batch=2), dtype)
    for layer in range(2):
        ours = run(backend, inputs, case.plan, spec, layer)
        for left, right in zip(ours, oracle(inputs, case, layer), strict=True):
            assert_near(left, right, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
def test_reference_rounds_once(dtype) -> None:
    spec = make_spec()
    plan = SelfExtend().plan(spec, 256)
    inputs = cast(make_inputs(spec, total=29, new=29), dtype)
    output, lse = run("reference", inputs, plan, spec)
    exact, exact_lse = run("reference", cast(inputs, torch.float64), plan, spec)
    assert torch.equal(output, exact.to(dtype)) and torch.equal(lse, exact_lse)


@pytest.mark.parametrize("backend", [name for name in RUNNABLE if name != "reference"])
def test_a_long_text_at_the_real_block_size_is_that_of_the_reference(backend) -> None:
    spec = make_spec(pretrained_length=2048)
    plan = SelfExtend(group=4, window=1030).plan(spec, 4096)  # the window's edge crosses blocks of 1,024
    inputs = cast(make_inputs(spec, total=2307, new=1201), torch.float32)
    ours = run(backend, inputs, plan, spec, block=1024)
    theirs = run("reference", inputs, plan, spec)
    for left, right in zip(ours, theirs, strict=True):
        assert_near(left, right, backend, torch.float32)


def test_gradients_of_sinks_alone_are_those_of_the_reference() -> None:
    """Queries, keys and values are constants, as in the first layer of a model whose sinks alone are trained."""
    spec = make_spec()
    plan = SelfExtend(group=4, window=5).plan(spec, 256)
    inputs = cast(make_inputs(spec, total=29, new=29, sinks=torch.zeros(4, requires_grad=True)), torch.float32)
    here = {"device": torch.device("cpu"), "dtype": torch.float32, "grad": inputs.needs_grad}
    ours, theirs = (
        torch.autograd.grad(choose(name, plan, **here).attend(inputs, plan, spec, 0)[0].sum(), inputs.sinks)[0]
        for name in ("auto", "reference")
    )
    assert_near(ours, theirs, "gradient", torch.float32)


def test_float16_products_beyond_its_range_are_the_reference() -> None:
    """A query times its key is 80,000 before it is scaled; blockwise has no fused kernel for gaps between positions."""
    spec = make_spec(head_dim=128)
    inputs = make_inputs(spec, total=9, new=9, positions=torch.arange(9) * 2)
    large = inputs.query.sign() * 25
    inputs = cast(like(inputs, query=large, key=large[:, :2]), torch.float16)
    plan = SelfExtend(group=4, window=5).plan(spec, 256)
    output, lse = run("blockwise", inputs, plan, spec)
    expected, expected_lse = run("reference", inputs, plan, spec)
    assert expected_lse.max() > 7000 and output.isfinite().all()
    torch.testing.assert_close(lse.double(), expected_lse, rtol=0, atol=8)  # float16 rounds 7,000 by 2
    torch.testing.assert_close(output[:, 0].double(), expected[:, 0].double(), rtol=0, atol=1e-2)  # key 0 is its own


def test_unknown_backend_is_refused_with_the_known_names() -> None:
    plan = SelfExtend().plan(make_spec(), 256)
    with pytest.raises(BackendError, match=r"'blokwise'.*did you mean 'blockwise'.*reference"):
        choose("blokwise", plan, device=torch.device("cpu"), dtype=torch.float32)


def test_named_backend_that_cannot_run_is_refused_with_its_reason() -> None:
    plan = SelfExtend().plan(make_spec(), 256)
    with pytest.raises(BackendError, match="'reference' cannot run this: the device has no float64"):
        choose("reference", plan, device=torch.device("mps"), dtype=torch.float32)


def test_auto_says_which_backend_it_took() -> None:
    plan = SelfExtend().plan(make_spec(), 256)
    here = {"device": torch.device("cpu"), "dtype": torch.bfloat16}
    lacking = BACKENDS.get("compiled").unsupported(plan, grad=False, **here)
    assert choose("auto", plan, **here).name == ("compiled" if lacking is None else "blockwise")
    assert choose("auto", plan, grad=True, **here).name == "blockwise"


def test_auto_lists_every_reason_when_nothing_can_run() -> None:
    plan = SelfExtend().plan(make_spec(), 256)
    with (
        patch.object(blockwise.Blockwise, "unsupported", return_value="it is Monday"),
        pytest.raises(BackendError, match="blockwise: it is Monday; reference: the device has no float64"),
    ):
        choose("auto", plan, device=torch.device("mps"), dtype=torch.float32)
