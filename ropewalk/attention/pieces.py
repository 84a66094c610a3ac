"""Cutting the pairs of a plan into pieces that an attention kernel can do without a mask.

A block of queries against a region is at most a rectangle that every query sees and a triangle at each of its edges. A
region on the other side of the diagonal is cut like its mirror image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ropewalk.plan import Band, Plan, Region

SQUARE = Region(side="both")

Shape = Literal["all", "lower", "upper", "masked"]


@dataclass(frozen=True)
class Piece:
    """Queries [start, stop) against keys [first, last) in token indices, and which of these pairs are in the band.

    shape: "all" pairs; "lower" triangle (key index in the piece <= query index in the piece); "upper" triangle
    (key index >= query index); "masked" by the region itself.
    """

    start: int
    stop: int
    first: int
    last: int
    shape: Shape


def pieces(region: Region, start: int, stop: int, total: int) -> Iterator[Piece]:
    """Cut the pairs of a region with queries [start, stop) into pieces; every row of a piece sees a key.

    The region is one-sided or the whole square. For chunk > 1 the queries must lie in one chunk. Keys ahead of the
    queries end at `total`.
    """
    if region.side == "both":
        yield Piece(start, stop, 0, total, "all")
        return
    if region.side == "future":
        yield from _pieces_ahead(region, start, stop, total)
        return
    if region.chunk > 1:
        yield from _chunk_pieces(region, start, stop)
        return
    start = max(start, region.lo)
    if start >= stop:
        return
    size = stop - start
    low = 0 if region.hi is None else start - region.hi + 1  # first key of the first query
    clean = region.hi is None or low >= 0 or stop <= region.hi
    if not clean or (region.hi is not None and region.hi - region.lo < size):
        yield Piece(start, stop, max(0, low), stop - region.lo, "masked" if size > 1 else "all")
        return
    first, last = 0, start - region.lo
    if region.hi is not None and low >= 0:
        first = low + size - 1  # from here on every query of the block is within the band's lower edge
        if size > 1:
            yield Piece(start, stop - 1, low, first, "upper")
    if size == 1:
        yield Piece(start, stop, first, last + 1, "all")
        return
    if last > first:
        yield Piece(start, stop, first, last, "all")
    yield Piece(start, stop, last, last + size, "lower")


def _chunk_pieces(region: Region, start: int, stop: int) -> Iterator[Piece]:
    chunk = region.chunk
    own = start // chunk
    first = 0 if region.hi is None else max(0, own - region.hi + 1) * chunk
    last = min((own - region.lo + 1) * chunk, start)
    if last > first:
        yield Piece(start, stop, first, last, "all")
    if region.lo == 0:
        yield Piece(start, stop, start, stop, "lower")


def _pieces_ahead(region: Region, start: int, stop: int, total: int) -> Iterator[Piece]:
    if region.chunk > 1:
        own = start // region.chunk
        first = max((own + region.lo) * region.chunk, stop)
        last = total if region.hi is None else min((own + region.hi) * region.chunk, total)
        if last > first:
            yield Piece(start, stop, first, last, "all")
        if region.lo == 0 and stop - start > 1:
            yield Piece(start, stop - 1, start + 1, stop, "upper")
    elif region.hi is None or region.hi > 1:  # read from its end, what is ahead is the past
        past = Region(max(1, region.lo), region.hi)
        turned: dict[Shape, Shape] = {"lower": "upper", "upper": "lower"}
        for p in pieces(past, total - stop, total - start, total):
            shape = turned.get(p.shape, p.shape)
            yield Piece(total - p.stop, total - p.start, total - p.last, total - p.first, shape)


def one_sided(plan: Plan) -> Iterator[tuple[Band, Region]]:
    """The bands of a plan, each with the one-sided regions that it is made of; the whole square stays whole."""
    for band in plan.bands:
        for region in (band.region,) if band.region == SQUARE else band.region.sides:
            yield band, region


def blocks(plan: Plan, start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut queries [start, stop) into blocks of at most `size`, no block across a chunk border of any band."""
    borders = {band.region.chunk for band in plan.bands if band.region.chunk > 1}
    while start < stop:
        end = min([stop, start + size] + [(start // chunk + 1) * chunk for chunk in borders])
        yield start, end
        start = end
