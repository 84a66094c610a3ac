"""The Triton kernel under Triton's interpreter, against the float64 reference.

Run by test_triton_decode.py in a process of its own, where TRITON_INTERPRET=1 is set before triton is imported. There
is no bfloat16: the interpreter's matrix product is wrong in it.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ropewalk.attention import BACKENDS, Inputs
from ropewalk.attention.triton_decode import Chip, TritonDecode
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Band, Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, like, make_inputs
from tests.tolerances import assert_near

CHIP = Chip(processors=8, shared=2**20)
METHODS = (
    "none",
    "self-extend:group=4,window=70",
    "dpe:window=70,scales=3/1/7.5/9",
    "rerope:window=70",
    "leaky-rerope:window=70,slope=2.7",
    "string:shift=100,window=20",
    "dpe:window=70,scales=2/5+yarn:factor=4",
)
SMALL = make_spec(head_dim=32, num_heads=6, num_kv_heads=2, pretrained_length=1024)


def attend(inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int = 0, chip: Chip = CHIP):
    backend = TritonDecode(chip)
    assert backend.refuses(inputs) is None
    return backend.attend(inputs, plan, spec, layer)


def assert_is_reference(inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int = 0, chip: Chip = CHIP) -> None:
    ours = attend(inputs, plan, spec, layer, chip)
    theirs = BACKENDS.get("reference").attend(cast(inputs, torch.float64), plan, spec, layer)
    assert ours[0].dtype == inputs.query.dtype and ours[1].dtype == torch.float32
    for left, right in zip(ours, theirs, strict=True):
        assert_near(left, right, "triton", inputs.query.dtype)


def single(inputs: Inputs) -> Inputs:
    return cast(inputs, torch.float32)


def masked(spec: RotarySpec, window: int, scales: tuple[float, ...] = (3.0, 1.0, 7.5, 9.0)) -> Plan:
    mask = np.random.default_rng(0).random((spec.num_layers, spec.num_heads, spec.pairs)) < 0.5
    return DPE(window=window, scales=scales, mask=Grid(mask)).plan(spec, 1024)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 2, 64), (6, 2, 64), (4, 1, 128)])
def test_masks_per_head_are_the_reference(heads, kv_heads, head_dim, dtype) -> None:
    spec = make_spec(head_dim=head_dim, num_heads=heads, num_kv_heads=kv_heads, pretrained_length=1024)
    inputs = cast(make_inputs(spec, total=201, new=1), dtype)
    assert_is_reference(inputs, masked(spec, 70), spec, layer=1)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_the_reference(name) -> None:
    inputs = single(make_inputs(SMALL, total=131, new=1, batch=2))
    assert_is_reference(inputs, parse(name).plan(SMALL, 4096), SMALL)


@pytest.mark.parametrize("new", [2, 5])
def test_several_new_tokens_are_the_reference(new) -> None:
    assert_is_reference(single(make_inputs(SMALL, total=131, new=new)), masked(SMALL, 63), SMALL)


@pytest.mark.parametrize("total", [1, 64, 65])
def test_texts_at_the_edges_of_tiles_are_the_reference(total) -> None:
    assert_is_reference(single(make_inputs(SMALL, total=total, new=1)), masked(SMALL, 64), SMALL)


def test_a_window_beyond_the_text_is_plain_attention() -> None:
    inputs = single(make_inputs(SMALL, total=130, new=2))
    plain = attend(inputs, parse("none").plan(SMALL, 1024), SMALL)
    for left, right in zip(attend(inputs, masked(SMALL, 700), SMALL), plain, strict=True):
        assert torch.equal(left, right)


def test_rows_with_padding_are_the_rows_alone() -> None:
    plan, total, new = masked(SMALL, 40), 120, 3
    rows = ((0, 120), (37, 120), (118, 120), (0, 90), (64, 119), (70, 70))
    inputs = single(make_inputs(SMALL, total=total, new=new, batch=len(rows)))
    for row, (first, last) in enumerate(rows):
        for x in (inputs.key, inputs.value):
            x[row, :, :first] = x[row, :, last:] = torch.nan
    output, lse = attend(like(inputs, rows=rows), plan, SMALL)
    for row, (first, last) in enumerate(rows):
        asks = slice(max(first, total - new), max(last, total - new))
        own = [slice(asks.start - (total - new), asks.stop - (total - new)), slice(first, last)]
        others = torch.ones(new, dtype=torch.bool)
        others[own[0]] = False
        assert not output[row][:, others].any() and bool(torch.isneginf(lse[row][:, others]).all())
        if not others.all():
            one = slice(row, row + 1)
            alone = like(
                inputs,
                query=inputs.query[one, :, own[0]],
                key=inputs.key[one, :, own[1]],
                value=inputs.value[one, :, own[1]],
            )
            theirs = BACKENDS.get("reference").attend(cast(alone, torch.float64), plan, SMALL, 0)
            assert_near(output[one, :, own[0]], theirs[0], "triton", torch.float32)
            assert_near(lse[one, :, own[0]], theirs[1], "triton", torch.float32)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize(
    ("head_dim", "rotary_dim", "start", "width"), [(48, 48, 0, 20), (40, 16, 24, 64), (36, 10, 4, 36)]
)
def test_any_width_and_layout_is_the_reference(head_dim, rotary_dim, start, width, layout) -> None:
    spec = make_spec(
        head_dim=head_dim, rotary_dim=rotary_dim, rotary_start=start, layout=layout, pretrained_length=1024
    )
    plan = parse("self-extend:group=3,window=40").plan(spec, 1024)
    assert_is_reference(single(make_inputs(spec, total=100, new=2, width=width)), plan, spec)


def test_scales_of_logits_and_sinks_are_the_reference() -> None:
    spec = make_spec(head_dim=32, rotary_dim=16, pretrained_length=64)
    plan = replace(parse("self-extend:group=3,window=40").plan(spec, 256), log_n=32, logit_scale=0.8)
    plan = replace(plan, table=replace(plan.table, attention_scaling=1.2))
    inputs = single(make_inputs(spec, total=100, new=4, sinks=torch.linspace(-1, 3, 4)))
    assert_is_reference(inputs, plan, spec)


def test_chunks_are_the_reference() -> None:
    far = PositionMap(Grid(5), floor=True)
    regions = Region(0, 1, 30), Region(1, 2, 30), Region(2, None, 30)
    plan = Plan((Band(regions[0]), Band(regions[1], far, far), Band(regions[2], far, far)), SMALL.table)
    for total, new in ((30, 1), (61, 1), (122, 5)):
        assert_is_reference(single(make_inputs(SMALL, total=total, new=new)), plan, SMALL)


def test_queries_that_see_nothing_are_zero_with_no_mass() -> None:
    inputs = single(make_inputs(SMALL, total=100, new=4))
    output, lse = attend(inputs, Plan((Band(Region(98)),), SMALL.table), SMALL)
    assert not output[:, :, :2].any() and bool(torch.isneginf(lse[:, :, :2]).all())
    assert_is_reference(inputs, Plan((Band(Region(98)),), SMALL.table), SMALL)


@pytest.mark.parametrize("processors", [1, 64])
def test_splits_change_nothing(processors) -> None:
    inputs = single(make_inputs(SMALL, total=260, new=1))
    assert_is_reference(inputs, masked(SMALL, 90), SMALL, chip=replace(CHIP, processors=processors))


def test_a_long_text_is_the_reference() -> None:
    """20,000 tokens, of which the bands see the last ones only: positions are large and the work is small."""
    whole = masked(SMALL, 40)
    local, remote = whole.bands
    plan = replace(whole, bands=(local, replace(remote, region=Region(40, 130))))
    inputs = single(make_inputs(SMALL, total=20_001, new=1))
    assert_is_reference(inputs, plan, SMALL, chip=replace(CHIP, processors=1))


def test_views_of_other_memory_are_what_they_show() -> None:
    plan = masked(SMALL, 40)
    inputs = single(make_inputs(SMALL, total=70, new=1, batch=2))
    names = ("query", "key", "value")
    swapped = {x: getattr(inputs, x).transpose(1, 2).contiguous().transpose(1, 2) for x in names}
    strided = {x: torch.stack((getattr(inputs, x),) * 2, -1)[..., 0] for x in names}
    expected = attend(inputs, plan, SMALL)
    for views in (swapped, strided):
        for left, right in zip(expected, attend(like(inputs, **views), plan, SMALL), strict=True):
            assert torch.equal(left, right)


def test_tables_grow_with_the_text() -> None:
    backend, plan = TritonDecode(CHIP), masked(SMALL, 40)
    for total in (60, 130):
        inputs = single(make_inputs(SMALL, total=total, new=1))
        theirs = BACKENDS.get("reference").attend(cast(inputs, torch.float64), plan, SMALL, 0)
        assert_near(backend.attend(inputs, plan, SMALL, 0)[0], theirs[0], "triton", torch.float32)
