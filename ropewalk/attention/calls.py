"""How a band becomes one call of a variable-length attention kernel (torch's varlen_attn, flash-attn).

Such a kernel attends within sequences that lie one behind another: sequence i has the queries from starts_q[i] to
starts_q[i + 1], and used_k[i] keys from starts_k[i] on. Causal means that its last query sees its last key. So

- the distances [lo, hi) are the sequence without its last lo keys, causal, with a window of hi - lo keys;
- chunks that differ by [lo, hi) are sequences of their own, one for each chunk of queries, which sees whole chunks of
  keys; causal where its own chunk is among them.

Every row of a batch and every key head in it is a sequence here, with the query heads that share the key head. So keys
[B, K, S, D] are read where they lie, whatever padding a row has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ropewalk.attention.base import Rows
from ropewalk.plan import Region

ALL, CAUSAL = (-1, -1), (-1, 0)  # windows
KEPT = 16  # calls; all layers of a step share one for each band


@dataclass(frozen=True)
class Part:
    """One sequence of a row: queries [start, stop) against keys [first, last), tokens of the row."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Call:
    """What a kernel wants to know besides queries, keys and values.

    Attributes:
        starts_q: where the queries of each sequence begin, and where the last ones end, int32 [N + 1].
        starts_k: where its keys begin, and where all keys end, int32 [N + 1].
        used_k: how many they are, int32 [N].
        longest_q: queries of any sequence.
        longest_k: keys of any sequence.
        window: keys that a query sees before and after the one at its own place; -1 for all.
        sees: whether a query sees a key at all, bool [queries], or None where all do.
    """

    starts_q: Tensor
    starts_k: Tensor
    used_k: Tensor
    longest_q: int
    longest_k: int
    window: tuple[int, int]
    sees: Tensor | None

    def packed(self) -> tuple[Tensor, Tensor]:
        """Where the keys are taken from to lie one behind another, int64 [keys], and where each sequence begins then.

        For a kernel that takes no `used_k`. A key that several sequences see is there several times.
        """
        ends = self.used_k.cumsum(0)
        shift = (self.starts_k[:-1] - (ends - self.used_k)).repeat_interleave(self.used_k)
        starts = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        return shift + torch.arange(len(shift), device=shift.device), starts


def parts(region: Region, first_query: int, length: int) -> Iterator[Part]:
    """The sequences of a row of `length` tokens, of which those from `first_query` on are queries."""
    if region.chunk == 1:
        first = 0 if region.hi is None else max(0, first_query - region.hi + 1)
        yield Part(first_query, length, first, max(first, length - region.lo))
        return
    for chunk in range(first_query // region.chunk, -(-length // region.chunk)):
        start, stop = max(first_query, chunk * region.chunk), min(length, (chunk + 1) * region.chunk)
        first = 0 if region.hi is None else max(0, chunk - region.hi + 1) * region.chunk
        last = stop if region.lo == 0 else max(first, (chunk - region.lo + 1) * region.chunk)
        yield Part(start, stop, first, last)


def window_of(region: Region, *, single: bool) -> tuple[int, int]:
    """The window of all sequences of a region; a single query sees every key of its sequence."""
    if single or (region.chunk > 1 and region.lo > 0):
        return ALL
    if region.chunk > 1 or region.hi is None:
        return CAUSAL
    return region.hi - region.lo - 1, 0


@lru_cache(maxsize=KEPT)
def call_of(
    region: Region, rows: Rows, new: int, total: int, heads: int, held: int, device: torch.device, gap: int
) -> Call | None:
    """The call for a region of the causal triangle, or None where no query sees a key.

    Args:
        rows: slots [first, last) of each row that hold tokens, of `total`; queries are the last `new` slots.
        heads: key heads, each a sequence of its own.
        held: slots that keys are given for, the last ones.
        gap: tokens in memory from the first key of a head to that of the next one.
    """
    queries, starts, used, sees = [], [], [], []
    for row, (first, last) in enumerate(rows):
        skipped = first - (total - held)  # where the keys of the row begin among those that are held
        query = max(first, total - new)
        if last <= query:  # and no empty tensor among whole numbers, which would make them floating point
            continue
        cut = list(parts(region, query - first, last - first))
        assert all(part.first + skipped >= 0 or part.first == part.last for part in cut), "keys that were not held"
        here = torch.arange(row * heads, (row + 1) * heads)[:, None] * gap
        starts.append((here + torch.tensor([max(0, part.first + skipped) for part in cut])).flatten())
        queries.append(torch.tensor([part.stop - part.start for part in cut]).repeat(heads))
        used.append(torch.tensor([part.last - part.first for part in cut]).repeat(heads))
        sees.append(torch.cat([_sees(region, part) for part in cut]).repeat(heads))
    if not any(bool(some.any()) for some in sees):
        return None
    each, keys, seen = torch.cat(queries), torch.cat(used), torch.cat(sees)
    end = torch.tensor([(len(rows) * heads - 1) * gap + held])
    ends = torch.nn.functional.pad(each.cumsum(0), (1, 0))
    longest = int(each.max())
    return Call(
        ends.int().to(device),
        torch.cat([*starts, end]).int().to(device),
        keys.int().to(device),
        longest_q=longest,
        longest_k=int(keys.max()),
        window=window_of(region, single=longest == 1),
        sees=None if seen.all() else seen.to(device),
    )


def _sees(region: Region, part: Part) -> Tensor:
    """Whether each query of a sequence sees a key, by the region, not by what a kernel returns."""
    if part.first == part.last:
        return torch.zeros(part.stop - part.start, dtype=torch.bool)
    return torch.arange(part.start, part.stop) >= (region.lo if region.chunk == 1 else 0)


@lru_cache(maxsize=KEPT)
def query_index(rows: Rows, new: int, total: int, heads: int, device: torch.device) -> Tensor | None:
    """Which of the queries [B, K, T], flat, are tokens, int64; None for all of them."""
    past = total - new
    if all(first <= past and last == total for first, last in rows):
        return None
    found = [torch.arange(max(first, past), max(first, past, last)) - past for first, last in rows]
    at = [tokens + (row * heads + head) * new for row, tokens in enumerate(found) for head in range(heads)]
    return torch.cat(at).to(device)
