"""The pieces into which blockwise cuts a region hold each of its pairs once, and every row of a piece sees a key."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.attention.pieces import Piece, blocks, one_sided, pieces
from ropewalk.methods import parse
from ropewalk.plan import Band, Plan, Region
from tests.contract.cases import make_spec


@st.composite
def regions(draw) -> Region:
    chunk = draw(st.just(1) | st.integers(2, 12))
    lo = draw(st.just(0) | st.integers(0, 30 if chunk == 1 else 4))
    hi = draw(st.none() | st.integers(1, 30 if chunk == 1 else 4).map(lambda extra: lo + extra))
    return Region(lo, hi, chunk, draw(st.sampled_from(["past", "future", "both"])))


def pairs_of(piece: Piece, region: Region) -> torch.Tensor:
    """Bool [queries, keys] of one piece, from what its shape promises."""
    m = torch.arange(piece.start, piece.stop)[:, None]
    n = torch.arange(piece.first, piece.last)[None, :]
    row, column = m - piece.start, n - piece.first
    return {
        "all": torch.ones(len(m), n.shape[1], dtype=torch.bool),
        "lower": column <= row,
        "upper": column >= row,
        "masked": region.contains(m, n),
    }[piece.shape]


@given(region=regions(), past=st.integers(0, 40), new=st.integers(1, 40), size=st.integers(1, 17))
def test_pieces_cover_each_pair_of_a_region_once(region, past, new, size) -> None:
    total = past + new
    plan = Plan((Band(region),), make_spec().table)
    count = torch.zeros(total, total, dtype=torch.int64)
    for start, stop in blocks(plan, past, total, size):
        for _, part in one_sided(plan):
            for piece in pieces(part, start, stop, total):
                inside = pairs_of(piece, part)
                assert start <= piece.start < piece.stop <= stop
                assert 0 <= piece.first < piece.last <= total
                assert inside.any(1).all(), "a row that sees no key"
                count[piece.start : piece.stop, piece.first : piece.last] += inside.long()
    m, n = torch.arange(total)[:, None], torch.arange(total)[None, :]
    expected = region.contains(m, n) & (m >= past)
    assert torch.equal(count, expected.long())


@given(start=st.integers(0, 50), extra=st.integers(1, 50), size=st.integers(1, 20), chunk=st.integers(2, 20))
def test_blocks_follow_one_another_and_cross_no_chunk(start, extra, size, chunk) -> None:
    plan = parse(f"dca:chunk={chunk},window=1").plan(make_spec(), 256)
    cut = list(blocks(plan, start, start + extra, size))
    assert [i for a, b in cut for i in range(a, b)] == list(range(start, start + extra))
    assert all(0 < b - a <= size and a // chunk == (b - 1) // chunk for a, b in cut)


def test_large_blocks_are_mostly_cut_without_a_mask() -> None:
    """A mask costs the kernel its speed: in the middle of a long text no piece may need one."""
    chunks = (Region(0, 1, 6144), Region(1, 2, 6144), Region(2, None, 6144))
    for region in (Region(0, 4096), Region(4096), Region(0), *chunks):
        for side in ("past", "future"):
            cut = list(pieces(replace(region, side=side), 20 * 1024, 21 * 1024, 40 * 1024))
            assert cut and all(piece.shape != "masked" for piece in cut), (region, side)


def test_the_whole_square_is_one_piece_a_block() -> None:
    plan = Plan((Band(Region(side="both")),), make_spec().table)
    assert [list(pieces(part, 3, 9, 17)) for _, part in one_sided(plan)] == [[Piece(3, 9, 0, 17, "all")]]
