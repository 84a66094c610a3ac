"""A step over pages equals the dense reference on each request alone: any lengths, any blocks, any cuts."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from ropewalk.attention import BACKENDS
from ropewalk.attention.base import Inputs
from ropewalk.attention.tables import Tables
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec, default_inv_freq
from ropewalk.serve.batch import Batch, Layer, attend
from ropewalk.serve.pages import Pages, key_maps, runs
from tests.tolerances import assert_near

HEADS, KV_HEADS, WIDTH, PAIRS = 4, 2, 8, 3  # two dimensions of each head are not rotated
BLOCK, BLOCKS = 4, 40
TARGET = 96
SPEC = RotarySpec(
    head_dim=WIDTH,
    rotary_dim=2 * PAIRS,
    base=100.0,
    pretrained_length=32,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    num_layers=1,
    inv_freq=tuple(default_inv_freq(100.0, 2 * PAIRS).tolist()),
)
METHODS = ("dpe", "self-extend", "rerope", "string", "dca", "dpe+yarn:factor=2", "none")


def masked_plan() -> Plan:
    """DPE with key dimensions that differ from head to head: keys cannot be shared."""
    mask = torch.rand(1, HEADS, PAIRS, generator=torch.Generator().manual_seed(1)) > 0.5
    return DPE(mask=Grid(mask.numpy().astype(float))).plan(SPEC, TARGET)


@dataclass
class Engine:
    """What an engine keeps: pages, and which blocks each request has."""

    layer: Layer
    copies: int
    layout: str
    tables: Tables = field(default_factory=Tables)

    def __post_init__(self) -> None:
        content = (self.copies + 1) * WIDTH
        if self.layout == "heads-first":
            self.storage = torch.empty(KV_HEADS, BLOCKS, BLOCK, content).transpose(0, 1)
        else:
            self.storage = torch.empty(BLOCKS, KV_HEADS, BLOCK, content)

    def step(self, requests: list["Request"], new: list[int]) -> list[Tensor]:
        """Read the next tokens of each request, all at once; what attention gives for them, [H, T, D] each."""
        parts = [request.next(count) for request, count in zip(requests, new, strict=True)]
        starts = torch.tensor([0, *new]).cumsum(0)
        lengths = torch.tensor([request.length for request in requests])
        table = torch.zeros(len(requests), BLOCKS, dtype=torch.int32)
        for row, request in enumerate(requests):
            table[row, : len(request.blocks)] = torch.tensor(request.blocks)
        slots = torch.cat([request.slots(count) for request, count in zip(requests, new, strict=True)])
        batch = Batch.of(starts, lengths, table, slots, BLOCK)
        query, key, value = (torch.cat([part[i] for part in parts]) for i in range(3))
        result = attend(batch, self.layer, query, key, value, Pages(self.storage, WIDTH), self.tables)
        return [part.transpose(0, 1) for part in result.split(new)]


class Request:
    """One request's un-rotated queries, keys and values, and its blocks."""

    def __init__(self, seed: int, total: int, blocks: list[int]) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.query, self.key, self.value = (
            torch.randn(total, heads, WIDTH, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        self.blocks = blocks
        self.length = 0

    def next(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        part = slice(self.length, self.length + count)
        self.length += count
        return self.query[part], self.key[part], self.value[part]

    def slots(self, count: int) -> Tensor:
        return torch.tensor(
            [self.blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(self.length - count, self.length)]
        )

    def alone(self, plan: Plan) -> Tensor:
        """The dense reference over all tokens, [H, T, D]."""
        inputs = Inputs(*(x.transpose(0, 1)[None] for x in (self.query, self.key, self.value)), WIDTH**-0.5)
        return BACKENDS.get("reference").attend(inputs, plan, SPEC, 0)[0][0]


def layer_of(plan: Plan, *, rotated: bool) -> tuple[Layer, int]:
    maps = key_maps(plan, rotated=rotated)
    return Layer(0, BACKENDS.get("blockwise"), plan, SPEC, maps, WIDTH**-0.5), max(1, len(maps))


PLANS = {name: parse(name).plan(SPEC, TARGET) for name in METHODS} | {"dpe masked by head": masked_plan()}


@pytest.mark.parametrize("layout", ["heads-first", "blocks-first"])
@pytest.mark.parametrize("rotated", [True, False], ids=["rotated", "unrotated"])
@pytest.mark.parametrize("name", PLANS)
def test_steps_over_pages_equal_the_reference(name, rotated, layout) -> None:
    plan = PLANS[name]
    engine = Engine(*layer_of(plan, rotated=rotated), layout)
    one, two = Request(1, 41, list(range(3, 14))), Request(2, 70, [30, 31, 2, 1, 33, *range(15, 28)])
    found: dict[Request, list[Tensor]] = {one: [], two: []}
    # prefill together, chunks, a request that waits, then token by token together
    for requests, new in [([one, two], [17, 33]), ([two], [19]), ([one, two], [7, 1]), *[([two, one], [1, 1])] * 17]:
        for request, part in zip(requests, engine.step(requests, new), strict=True):
            found[request].append(part)
    for request, parts in found.items():
        assert_near(torch.cat(parts, 1), request.alone(plan)[:, : request.length], "blockwise", torch.float32)
        assert request.length == len(request.query)


def test_a_prefix_of_another_request_is_read_from_its_pages() -> None:
    plan = PLANS["dpe"]
    engine = Engine(*layer_of(plan, rotated=True), "heads-first")
    first = Request(1, 20, [4, 5, 6, 7, 8])
    engine.step([first], [20])
    second = Request(1, 20, [4, 5, 6, 20, 21])  # the same text up to token 12
    second.length = 12
    (found,) = engine.step([second], [8])
    assert_near(found, second.alone(plan)[:, 12:], "blockwise", torch.float32)


def test_pages_of_two_key_maps_hold_two_copies_and_of_one_map_one() -> None:
    assert len(key_maps(PLANS["dpe"], rotated=True)) == 2
    assert len(key_maps(PLANS["string"], rotated=True)) == 1
    assert key_maps(PLANS["dpe masked by head"], rotated=True) == ()
    assert key_maps(PLANS["dpe"], rotated=False) == ()


def test_runs_are_neighbouring_blocks_in_order() -> None:
    assert runs([4, 5, 9]) == [(4, 6), (9, 10)]
    assert runs([9, 8]) == [(9, 10), (8, 9)]
    assert runs([3]) == [(3, 4)]


def test_neighbouring_blocks_are_read_without_a_copy() -> None:
    pages = Pages(torch.zeros(KV_HEADS, BLOCKS, BLOCK, 2 * WIDTH).transpose(0, 1), WIDTH)
    assert pages.read([3, 4, 5], 9).data_ptr() == pages.storage[3].data_ptr()
    assert pages.read([3, 5], 7).data_ptr() != pages.storage[3].data_ptr()
