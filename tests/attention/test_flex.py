"""The FlexAttention backend: its masks against the regions themselves, and torch's own uncompiled FlexAttention."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import AuxOutput, create_mask, flex_attention

from ropewalk.attention import BACKENDS
from ropewalk.attention.flex import BLOCK, FAR, Flex, compiled, mask_of
from ropewalk.attention.intervals import interval
from ropewalk.attention.pieces import one_sided
from ropewalk.errors import BackendError
from ropewalk.plan import Band, Plan, Region
from tests.attention.test_gradients import METHODS, SPEC, error, plan_of
from tests.attention.test_ragged import PADDED
from tests.contract.test_backends import cast, like, make_inputs
from tests.tolerances import assert_near

TOTAL = 333
every_name = pytest.mark.parametrize("name", METHODS)


@st.composite
def regions(draw) -> Region:
    chunk = draw(st.just(1) | st.integers(2, 12))
    lo = draw(st.just(0) | st.integers(0, 30 if chunk == 1 else 4))
    hi = draw(st.none() | st.integers(1, 30 if chunk == 1 else 4).map(lambda extra: lo + extra))
    return Region(lo, hi, chunk, draw(st.sampled_from(["past", "future"])))


@given(region=regions() | st.just(Region(side="both")), steps=st.lists(st.integers(1, 5), min_size=1, max_size=40))
def test_interval_holds_the_keys_that_the_region_contains(region, steps) -> None:
    positions = torch.tensor(steps).cumsum(0) - 1
    first, last = interval(region, positions)
    found = (positions[None] >= first[:, None]) & (positions[None] <= last[:, None])
    assert torch.equal(found, region.contains(positions[:, None], positions[None]))
    assert (first.diff() >= 0).all() and (last.diff() >= 0).all()


@given(data=st.data(), region=regions())
def test_masks_and_their_blocks_are_the_region(data, region) -> None:
    """The mask is the region's; no pair is in a block that is left out, none outside the mask in an unmasked one."""
    scale = data.draw(st.sampled_from([1, 60]))  # regions of the size of a block, too
    region = replace(region, lo=region.lo * scale, hi=None if region.hi is None else region.hi * scale)
    total = data.draw(st.integers(1, 450))
    new, held = data.draw(st.integers(1, total)), data.draw(st.integers(1, total))
    steps = data.draw(st.lists(st.integers(1, 3), min_size=total, max_size=total) | st.just([1] * total))
    positions = torch.tensor(steps).cumsum(0) - 1
    rows = [positions]
    if data.draw(st.booleans()):
        before = data.draw(st.integers(0, total - 1))
        behind = data.draw(st.integers(0, total - 1 - before))
        rows.append((positions - before).clamp(min=-1))
        rows[-1][total - behind :] = FAR
    batch = torch.stack(rows)
    m, n = batch[:, -new:, None], batch[:, None, -held:]
    wanted = region.contains(m, n) & (m >= 0) & (n >= 0) & (m < FAR) & (n < FAR)
    mask = mask_of(region, batch, new, held)
    if mask is None:
        assert not wanted.any()
        return
    assert torch.equal(mask.sees[:, 0], wanted.any(-1))
    found = create_mask(mask.blocks.mask_mod, len(batch), 1, new, held, device="cpu")[:, 0]
    assert torch.equal(found, wanted)
    blocks = mask.blocks
    for kind, number, index in (
        ("some", blocks.kv_num_blocks, blocks.kv_indices),
        ("every", blocks.full_kv_num_blocks, blocks.full_kv_indices),
    ):
        for row in range(len(batch)):
            for i in range(number.shape[2]):
                for j in index[row, 0, i, : number[row, 0, i]].tolist():
                    pairs = wanted[row, i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
                    assert kind == "some" or pairs.all()
                    pairs.zero_()
    assert not wanted.any()


@pytest.fixture
def flex() -> Flex:
    """Over torch's own, uncompiled: on a CPU it returns the logsumexp, though the compiled one does not."""

    def attention(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
            return flex_attention(*args, **kwargs)

    return Flex("cpu", attention)


def dense(q, k, v, *, score_mod, block_mask, scale, enable_gqa, return_aux):
    """FlexAttention by its page, for autograd, which a CPU does not have of the real one; unseen rows are poison."""
    assert enable_gqa and return_aux.lse
    repeats = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(repeats, 1).mT * scale
    scores = scores if score_mod is None else score_mod(scores, None, None, None, None)
    mask = create_mask(block_mask.mask_mod, len(q), 1, q.shape[2], k.shape[2], device="cpu")
    blind = ~mask.any(-1, keepdim=True)
    logits = scores.masked_fill(~(mask | blind), -torch.inf)
    out = (logits.softmax(-1) @ v.repeat_interleave(repeats, 1)).masked_fill(blind, torch.nan)
    return out, AuxOutput(lse=logits.logsumexp(-1).masked_fill(blind[..., 0], torch.inf))


@pytest.mark.parametrize("new", [TOTAL, 1])
@every_name
def test_output_and_logsumexp_are_those_of_the_reference(flex, name, new) -> None:
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=new, batch=2, width=20), torch.float32)
    plan = plan_of(name, log_n=64)
    wanted = BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)
    for left, right in zip(flex.attend(inputs, plan, SPEC, 0), wanted, strict=True):
        assert_near(left, right, "flex", torch.float32)


@pytest.mark.parametrize("name", ["dpe", "dca"])
def test_soft_caps_gaps_sinks_and_both_sides_are_those_of_the_reference(flex, name) -> None:
    positions = torch.randint(1, 4, (TOTAL,), generator=torch.Generator().manual_seed(0)).cumsum(0)
    plain = cast(make_inputs(SPEC, total=TOTAL, new=TOTAL), torch.float32)
    hard = like(plain, positions=positions, softcap=2.0, sinks=torch.linspace(-1, 2, 4))
    for inputs, plan in ((hard, plan_of(name)), (plain, plan_of(name).mirrored())):
        wanted = BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)
        for left, right in zip(flex.attend(inputs, plan, SPEC, 0), wanted, strict=True):
            assert_near(left, right, "flex", torch.float32)


@every_name
def test_gradients_are_those_of_the_reference(name) -> None:
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=200, sinks=torch.linspace(-1, 2, 4)), torch.float32)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]

    def gradients(backend):
        output, lse = backend.attend(inputs, plan_of(name, log_n=64), SPEC, 0)
        return torch.autograd.grad(output.double().sin().sum() + lse.double().cos().sum(), leaves)

    for left, right in zip(gradients(Flex("cpu", dense)), gradients(BACKENDS.get("reference")), strict=True):
        assert error(left, right) < 1e-5


@pytest.mark.parametrize(("side", "new"), [("left", TOTAL), ("left", 40), ("left", 1), ("right", TOTAL), ("both", 300)])
@every_name
def test_padded_rows_in_one_call_are_the_rows_alone(name, side, new) -> None:
    rows, plan, backend = PADDED[side], plan_of(name, log_n=64), Flex("cpu", dense)
    inputs = cast(make_inputs(SPEC, total=TOTAL, new=new, batch=len(rows)), torch.float32)
    leaves = [x.requires_grad_() for x in (inputs.query, inputs.key, inputs.value)]
    output, lse = backend.attend(like(inputs, rows=rows), plan, SPEC, 0)
    assert all(bool(x.isfinite().all()) for x in torch.autograd.grad(output.sum(), leaves))
    past = TOTAL - new
    for row, (first, last) in enumerate(rows):
        queries, keys = slice(max(0, first - past), max(0, last - past)), slice(first, last)
        seen = torch.zeros(new, dtype=torch.bool)
        seen[queries] = True
        assert not output[row, :, ~seen].any() and bool(torch.isneginf(lse[row, :, ~seen]).all())
        if seen.any():
            query, key, value = (x[row, None] for x in leaves)
            alone = like(inputs, query=query[:, :, queries], key=key[:, :, keys], value=value[:, :, keys])
            wanted, wanted_lse = BACKENDS.get("reference").attend(alone, plan, SPEC, 0)
            assert_near(output[row, None, :, queries], wanted, "flex", torch.float32)
            assert_near(lse[row, None, :, queries], wanted_lse, "flex", torch.float32)


def test_prefill_and_decoding_of_any_plan_and_length_are_compiled_a_few_times() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    backend = Flex("cpu", compiled(backend=counter))
    for name in ("dpe", "dca"):
        for new, total in ((333, 333), (1, 334), (40, 376), (1, 377)):
            inputs, plan = cast(make_inputs(SPEC, total=total, new=new), torch.float32), plan_of(name)
            wanted = BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)
            for left, right in zip(backend.attend(inputs, plan, SPEC, 0), wanted, strict=True):
                assert_near(left, right, "flex", torch.float32)
    assert 1 <= counter.frame_count <= 4


def test_rows_that_no_band_shows_a_key_are_zero_with_no_mass(flex) -> None:
    plan = Plan((Band(Region(150)),), SPEC.table)
    inputs = cast(make_inputs(SPEC, total=200, new=200), torch.float32)
    for given_inputs in (
        inputs,
        like(inputs, **{x: getattr(inputs, x)[:, :, :100] for x in ("query", "key", "value")}),
    ):
        output, lse = flex.attend(given_inputs, plan, SPEC, 0)
        assert not output[:, :, :150].any() and bool(torch.isneginf(lse[:, :, :150]).all())
        assert bool(lse[:, :, 150:].isfinite().all())


def test_most_blocks_of_a_long_text_are_skipped_or_unmasked() -> None:
    for _, region in one_sided(plan_of("dpe", bands=(Band(Region(0, 1024)), Band(Region(1024))))):
        mask = mask_of(region, torch.arange(16384)[None], 16384, 16384)
        assert mask.blocks.kv_num_blocks.sum() <= 2 * 16384 / BLOCK


def test_what_cannot_run_is_said() -> None:
    plan = plan_of("dpe")
    with pytest.raises(
        BackendError, match=r"'flex' cannot run this: it runs on CUDA, not on 'cpu'; on a CPU torch retu"
    ):
        from ropewalk.attention import choose

        choose("flex", plan, device=torch.device("cpu"), dtype=torch.float32)
    cuda = {"device": torch.device("cuda"), "grad": True}
    assert BACKENDS.get("flex").unsupported(plan, dtype=torch.bfloat16, **cuda) is None
    reason = BACKENDS.get("flex").unsupported(plan, dtype=torch.float64, **cuda)
    assert reason == "it computes in float16, bfloat16 and float32, not in float64"
