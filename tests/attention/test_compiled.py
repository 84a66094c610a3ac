"""The compiled backend at the sizes of its tiles: 128 queries, 256 keys, 64 columns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ropewalk.attention import BACKENDS, Inputs
from ropewalk.attention.rotated import RotatedKeys
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Band, Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, like, make_inputs
from tests.tolerances import assert_near

METHODS = ("none", "self-extend:group=4,window=130", "dca:chunk=200,window=50", "string:shift=300,window=20")
LONG = 700
WIDTHS = [(128, 128, 0, 128), (80, 32, 48, 100), (24, 10, 0, 200)]  # of heads, their rotated part, its start; values


def model(**fields) -> RotarySpec:
    return make_spec(pretrained_length=1024, **fields)


def attend(inputs: Inputs, plan: Plan, spec, backend: str = "compiled", layer: int = 0):
    query = inputs.query
    reason = BACKENDS.get(backend).unsupported(plan, device=query.device, dtype=query.dtype, grad=False)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    return BACKENDS.get(backend).attend(inputs, plan, spec, layer)


def assert_is_reference(inputs: Inputs, plan: Plan, spec, layer: int = 0) -> None:
    ours = attend(inputs, plan, spec, layer=layer)
    theirs = attend(inputs, plan, spec, "reference", layer)
    for left, right in zip(ours, theirs, strict=True):
        assert_near(left, right, "compiled", inputs.query.dtype)


def last(inputs: Inputs, new: int) -> Inputs:
    return like(inputs, query=inputs.query[:, :, -new:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("new", [LONG, 333, 17, 2, 1])
def test_any_share_of_new_tokens_is_the_reference(name, new, dtype) -> None:
    spec = model(head_dim=64, num_heads=6)
    inputs = cast(make_inputs(spec, total=LONG, new=LONG, batch=2, sinks=torch.linspace(-1, 3, 6)), dtype)
    assert_is_reference(last(inputs, new), parse(name).plan(spec, 1024), spec)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("new", [260, 9])
@pytest.mark.parametrize(("head_dim", "rotary_dim", "start", "width"), WIDTHS)
def test_any_width_is_the_reference(head_dim, rotary_dim, start, width, layout, new) -> None:
    spec = model(head_dim=head_dim, rotary_dim=rotary_dim, rotary_start=start, layout=layout)
    plan = parse("self-extend:group=3,window=100").plan(spec, 1024)
    for dtype in (torch.float32, torch.bfloat16):
        assert_is_reference(cast(make_inputs(spec, total=400, new=new, width=width), dtype), plan, spec)


@pytest.mark.parametrize("new", [LONG, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gaps_between_positions_and_soft_caps_are_the_reference(new, softcap) -> None:
    spec = model(head_dim=32)
    positions = torch.randint(1, 4, (LONG,), generator=torch.Generator().manual_seed(0)).cumsum(0)
    inputs = cast(make_inputs(spec, total=LONG, new=new, positions=positions, softcap=softcap), torch.float32)
    for name in METHODS:
        assert_is_reference(inputs, replace(parse(name).plan(spec, 2048), log_n=64), spec)


def test_rows_that_see_nothing_are_zero_with_no_mass() -> None:
    spec = model(head_dim=32)
    plan = Plan((Band(Region(150)),), spec.table)
    for new in (LONG, 1):
        inputs = cast(make_inputs(spec, total=max(new, 100), new=new), torch.float32)
        output, lse = attend(inputs, plan, spec)
        rows = min(150, new)
        assert not output[:, :, :rows].any() and bool(torch.isneginf(lse[:, :, :rows]).all())
        assert_is_reference(inputs, plan, spec)


@pytest.mark.parametrize("new", [LONG, 300, 3, 1])
@pytest.mark.parametrize("num_kv_heads", [2, 6])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("rotary_dim", [64, 40])
def test_masks_per_head_are_the_reference(new, num_kv_heads, layout, rotary_dim) -> None:
    spec = model(head_dim=64, rotary_dim=rotary_dim, layout=layout, num_heads=6, num_kv_heads=num_kv_heads)
    mask = np.random.default_rng(0).random((2, 6, spec.pairs)) < 0.5
    plan = DPE(window=130, scales=(3.0, 1.0, 7.5, 9.0), mask=Grid(mask)).plan(spec, 1024)
    for dtype in (torch.float32, torch.bfloat16):
        assert_is_reference(last(cast(make_inputs(spec, total=LONG, new=LONG), dtype), new), plan, spec, layer=1)


@pytest.mark.parametrize("new", [100, 1])
def test_heads_of_one_scale_for_all_pairs_are_the_reference(new) -> None:
    spec = model(head_dim=64)
    scale = Grid([[2.0], [5.0], [2.0], [5.0]])
    far = Band(Region(7, None), PositionMap(scale, Grid(7.0), floor=True), PositionMap(scale, floor=True))
    inputs = cast(make_inputs(spec, total=300, new=new), torch.float32)
    assert_is_reference(inputs, Plan((Band(Region(0, 7)), far), spec.table), spec)


def test_more_than_two_maps_per_pair_are_refused() -> None:
    spec = model(num_heads=4)
    band = DPE(window=5, scales=(4.0,)).plan(spec, 256).bands[1]
    scale = Grid(np.arange(1.0, 5.0)[:, None])
    plan = Plan((replace(band, key=replace(band.key, scale=scale)),), spec.table)
    reason = BACKENDS.get("compiled").unsupported(plan, device=torch.device("cpu"), dtype=torch.float32, grad=False)
    assert reason == "a rotary pair has more than two scales or offsets over heads"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("new", [300, 9, 1])
def test_keys_rotated_before_are_keys_rotated_inside(name, new) -> None:
    spec = model(head_dim=64)
    plan = parse(name).plan(spec, 1024)
    inputs = cast(make_inputs(spec, total=LONG, new=new), torch.float32)
    expected = attend(inputs, plan, spec)
    tables = BACKENDS.get("compiled").tables
    held = RotatedKeys(inputs.key, new, plan, spec=spec, layer=0, origins=[0], tables=tables)
    unknown = torch.full((1, 1, 1, 1), torch.nan).expand(inputs.key.shape)
    ours = attend(like(inputs, key=unknown, rotated=held.part(slice(None), slice(0, LONG))), plan, spec)
    for left, right in zip(ours, expected, strict=True):
        assert_near(left, right, "compiled", torch.float32)


@pytest.mark.parametrize("new", [LONG, 1])
def test_views_of_other_memory_are_what_they_show(new) -> None:
    spec = model(head_dim=64)
    plan = parse("self-extend:group=4,window=130").plan(spec, 1024)
    inputs = cast(make_inputs(spec, total=LONG, new=new, batch=2), torch.float32)
    names = ("query", "key", "value")
    swapped = {x: getattr(inputs, x).transpose(1, 2).contiguous().transpose(1, 2) for x in names}
    strided = {x: torch.stack((getattr(inputs, x),) * 2, -1)[..., 0] for x in names}
    for views in (swapped, strided):
        for left, right in zip(attend(inputs, plan, spec), attend(like(inputs, **views), plan, spec), strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("new", [LONG, 1])
def test_threads_change_nothing(new) -> None:
    spec = model(head_dim=64, num_kv_heads=1)
    plan = parse("dca:chunk=900,window=50").plan(spec, 8192)
    inputs = cast(make_inputs(spec, total=3000, new=new), torch.float32)
    expected = attend(inputs, plan, spec)
    try:
        torch.set_num_threads(3)
        ours = attend(inputs, plan, spec)
    finally:
        torch.set_num_threads(1)
    for left, right in zip(ours, expected, strict=True):
        assert_near(left, right, "compiled", torch.float32)


@pytest.mark.parametrize("name", ["none", "self-extend:group=4,window=130"])
@pytest.mark.parametrize("num_kv_heads", [1, 3, 10])
def test_key_heads_are_shared_out_among_threads(name, num_kv_heads) -> None:
    spec = model(head_dim=32, num_heads=2 * num_kv_heads, num_kv_heads=num_kv_heads)
    inputs = cast(make_inputs(spec, total=3200, new=2, batch=3), torch.float32)
    try:
        torch.set_num_threads(4)
        assert_is_reference(inputs, parse(name).plan(spec, 4096), spec)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_is_as_near_the_reference_as_blockwise(name) -> None:
    """By the root of the mean square, which is what rounding moves; the largest difference is that of one number."""
    spec = model(head_dim=64)
    plan = parse(name).plan(spec, 2048)
    inputs = cast(make_inputs(spec, total=1500, new=1500), torch.bfloat16)
    exact = attend(cast(inputs, torch.float64), plan, spec, "reference")[0]
    errors = {b: (attend(inputs, plan, spec, b)[0] - exact).square().mean().sqrt() for b in ("compiled", "blockwise")}
    assert errors["compiled"] <= 1.02 * errors["blockwise"], errors
