"""Keys rotated when they are cached are the keys rotated now, bit for bit; what crops and memory cost."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ropewalk import rotary
from ropewalk.attention import rotated
from ropewalk.attention.rotated import Buffer, RotatedKeys, reaches, unsupported
from ropewalk.attention.tables import Tables
from ropewalk.methods import parse
from ropewalk.plan import Band, Plan, PositionMap, Region
from ropewalk.rotary import rotate
from tests.contract.cases import make_spec

SPEC = make_spec()
HEADS = SPEC.num_kv_heads
METHODS = (
    "self-extend:group=3,window=13",
    "rerope:window=13",
    "leaky-rerope:window=13,slope=2.7",
    "dpe:window=13,scales=1/3.5",
    "dpe:window=13,scales=1/3.5+yarn:factor=1.5",
    f"string:shift={SPEC.pretrained_length - 1},window=3",
    "dca:chunk=37,window=7",
)
# A key in bfloat16, rotated once, is 1.7e-3 off its own length and 2.4e-3 when it was turned back and rotated again.
ONCE, TWICE = 2e-3, 3e-3


def plan_of(method: str) -> Plan:
    return parse(method).plan(SPEC, 2 * SPEC.pretrained_length)


def random_keys(batch: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, HEADS, length, SPEC.head_dim, generator=generator).bfloat16()


def hold(keys: Tensor, method: str, origins: list[int], new: int | None = None) -> RotatedKeys:
    return RotatedKeys(
        keys, new or keys.shape[2], plan_of(method), spec=SPEC, layer=0, origins=origins, tables=Tables()
    )


def rotated_now(keys: Tensor, to: PositionMap, plan: Plan, origin: int, first: int) -> Tensor:
    """The keys of one row, un-rotated [K, S, D], from slot `first` on."""
    cos, sin = Tables().get(to, plan, 0, torch.arange(first, keys.shape[1]) - origin, keys.device)
    return rotate(keys[:, first:], cos, sin, SPEC)


def assert_rotated(held: RotatedKeys, truth: Tensor) -> None:
    """Everything that a next query may ask for is there, and is the truth rotated once."""
    found = held.part(slice(None), slice(0, held.length))
    for to, reach in reaches(held.plan).items():
        count = found[to].shape[2]
        assert count == held.length if reach is None else count >= min(held.length, reach - 1)
        for row, origin in enumerate(held.origins):
            first = max(origin, held.length - count)
            ours = found[to][row][:, first - (held.length - count) :]
            assert torch.equal(ours, rotated_now(truth[row], to, held.plan, origin, first))


@pytest.fixture(autouse=True)
def little_room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "memory" not in request.node.name:
        monkeypatch.setattr(rotated, "SPARE", 5)
        monkeypatch.setattr(rotated, "ROOM", 3)


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_begin_apart_are_turned_at_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    origins = [0, 3, 11, 25, 40]
    keys, new = random_keys(5, 41), random_keys(5, 2, seed=1)
    held = hold(keys, method, origins)
    turns: list[int] = []
    turn = rotary._rotate
    monkeypatch.setattr(rotary, "_rotate", lambda x, *rest: (turns.append(1), turn(x, *rest))[1])
    held.append(new)
    assert len(turns) == len(reaches(held.plan))
    assert_rotated(held, torch.cat((keys, new), 2))


@pytest.mark.parametrize("method", METHODS)
def test_held_keys_are_the_keys_rotated_now_bit_for_bit(method: str) -> None:
    truth = random_keys(3, 90)
    held = hold(truth[:, :, :31], method, [0, 9, 30])
    assert_rotated(held, truth[:, :, :31])
    for stop in (32, 33, 60, 61, 62, 63, 64, 90):
        held.append(truth[:, :, held.length : stop])
        assert_rotated(held, truth[:, :, :stop])
        held.trim()
        assert_rotated(held, truth[:, :, :stop])
    rows = torch.tensor([2, 1, 1, 0])
    held.select(rows)
    held.crop(5)
    assert_rotated(held, truth[rows][:, :, :85])
    held.append(truth[rows][:, :, 85:])
    assert_rotated(held, truth[rows])


@pytest.mark.parametrize("method", METHODS)
def test_a_long_append_holds_what_all_its_queries_ask_for(method: str) -> None:
    truth = random_keys(1, 90)
    held = hold(truth[:, :, :40], method, [0])
    held.trim()
    held.append(truth[:, :, 40:])
    found = held.part(slice(None), slice(0, 90))
    for to, reach in reaches(held.plan).items():
        assert found[to].shape[2] >= (90 if reach is None else 50 + reach - 1)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("method", METHODS)
def test_crop_beyond_what_is_spared_costs_one_rounding(method: str) -> None:
    truth = random_keys(2, 90)
    held = hold(truth, method, [0, 7], new=1)
    held.crop(30)
    for to, keys in held.part(slice(None), slice(0, 60)).items():
        first = 60 - keys.shape[2]
        for row, origin in enumerate(held.origins):
            exact = rotated_now(truth[row, :, :60].double(), to, held.plan, origin, max(first, origin))
            assert relative_error(keys[row, :, max(first, origin) - first :], exact) < TWICE
    assert relative_error(held.unrotated()[1, :, 7:], truth[1, :, 7:60].double()) < ONCE


@pytest.mark.parametrize("method", METHODS)
def test_float32_keys_come_back(method: str) -> None:
    truth = random_keys(2, 90).float()
    held = hold(truth, method, [0, 7])
    torch.testing.assert_close(held.unrotated(), truth, rtol=0, atol=2e-6)


def test_part_cuts_rows_and_slots() -> None:
    truth = random_keys(3, 50)
    held = hold(truth, "self-extend:group=3,window=13", [4, 0, 0], new=1)
    for to, keys in held.part(torch.tensor([0]), slice(4, 50)).items():
        exact = rotated_now(truth[0], to, held.plan, 4, 50 - keys.shape[2])
        assert torch.equal(keys[0], exact)
        assert keys.shape[2] == (46 if reaches(held.plan)[to] is None else min(46, 13 + 5))


@pytest.mark.parametrize(
    ("change", "belongs"),
    [
        (lambda plan: (plan, 0, [0, 7]), True),
        (lambda plan: (plan, 1, [0, -1]), True),
        (lambda plan: (plan, 0, [0, 8]), False),
        (lambda plan: (plan, 0, [0]), False),
        (lambda plan: (plan_of("dpe:window=12,scales=1/3.5"), 0, [0, 7]), False),
    ],
    ids=["same", "any layer, padding row", "other padding", "other batch", "other plan"],
)
def test_keys_belong_to_what_they_were_rotated_for(
    change: Callable[[Plan], tuple[Plan, int, list[int]]], belongs: bool
) -> None:
    held = hold(random_keys(2, 20), "dpe:window=13,scales=1/3.5", [0, 7])
    plan, layer, origins = change(plan_of("dpe:window=13,scales=1/3.5"))
    assert held.belong_to(plan, SPEC, layer, origins) == belongs


def test_keys_that_differ_by_query_head_are_not_held() -> None:
    far = PositionMap([[1.0], [2.0]])
    plan = Plan((Band(Region(0, 9)), Band(Region(9), far, far)), SPEC.table)
    assert "query heads" in str(unsupported(plan))


def test_two_maps_that_want_every_key_are_not_held() -> None:
    plan = Plan((Band(Region(0, None)), Band(Region(9), PositionMap(2.0), PositionMap(2.0))), SPEC.table)
    assert "more than one key map" in str(unsupported(plan))


def test_a_window_over_all_bands_keeps_every_key() -> None:
    assert list(reaches(Plan((Band(Region(0, 9)),), SPEC.table)).values()) == [None]


def test_memory_at_128k_is_that_of_a_stock_cache() -> None:
    """Keys and values of one narrow head: prefill by chunks, then decode, at a window of 1,024."""
    length, chunk = 131_072, 16_384
    keys = torch.zeros(1, 1, length, SPEC.head_dim, dtype=torch.bfloat16)
    plan = parse("self-extend:group=16,window=1024").plan(make_spec(pretrained_length=8192), length)
    held = RotatedKeys(
        keys[:, :, :chunk], chunk, plan, spec=make_spec(pretrained_length=8192), layer=0, origins=[0], tables=Tables()
    )
    values = Buffer(keys[:, :, :chunk])
    largest = 0.0
    for start in [*range(chunk, length - chunk, chunk), *range(length - chunk, length - chunk + 600)]:
        step = chunk if start < length - chunk else 1
        held.append(keys[:, :, start : start + step])
        values.append(keys[:, :, start : start + step])
        held.trim()
        if start > length // 2:
            largest = max(largest, (held.size + values.size) / (2 * held.length))
    assert largest < 1.01


@pytest.mark.parametrize("method", ["self-extend:group=16,window=1024", "dpe:window=1024", "dca:chunk=6144"])
def test_memory_of_a_static_cache_at_128k_is_that_of_the_stock_one(method: str) -> None:
    """Keys and values of one narrow head in memory of a fixed size; the last 300 tokens are decoded."""
    length, spec = 131_072, make_spec(pretrained_length=8192)
    room = torch.zeros(1, 1, length, SPEC.head_dim, dtype=torch.bfloat16)
    plan = parse(method).plan(spec, length)
    held = RotatedKeys(
        room[:, :, : length - 300], 512, plan, spec=spec, layer=0, origins=[0], tables=Tables(), room=room
    )
    for _ in range(300):
        held.append(torch.zeros(1, 1, 1, SPEC.head_dim, dtype=torch.bfloat16))
        held.trim()
    assert held.whole.room is room
    assert held.size + length <= 1.01 * 2 * length
