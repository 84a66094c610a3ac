"""Keys that are rotated once, when they are cached, and never again.

A band without an upper bound asks for every key under its key map; one with a bound asks for the last keys only. So of
a plan with one key map (STRING, DCA) one rotated copy is held, in the memory of the un-rotated keys. Of a plan with two
(DPE, Self-Extend, ReRoPE, Leaky ReRoPE) all keys are held as the remote band wants them, and the last `window` ones
also as the local band does. A new key is rotated once by each map.

The un-rotated keys are recovered by turning the full-length copy back in float32. That is exact up to one more rounding
to the dtype of the keys; measured for bfloat16: relative error 1.7e-3 of a key rotated once, 2.4e-3 of one rotated,
turned back and rotated again. Crops of up to `SPARE` tokens need none of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import RotarySpec, rotate

SPARE = 256  # tokens held beyond a band's reach; a question with its answer, or the guesses of assisted decoding
ROOM = 128  # tokens that a buffer grows by at least
PART = 512  # and a long one by 1 / PART of itself: 0.2 % of memory, one copy of it every so many tokens


class Buffer:
    """The last tokens of a sequence, [B, K, n, W], written at the end.

    Memory is the buffer's own from the first append on, and never of inference mode, which other modes may not write.

    Args:
        tokens: what there is, [B, K, n, W].
        room: memory of the right size that begins with these tokens and is written to, [B, K, N, W], or None.

    Attributes:
        reach: how many of the last tokens a query asks for, or None when it asks for all.
    """

    def __init__(self, tokens: Tensor, reach: int | None = None, *, room: Tensor | None = None) -> None:
        self.reach = reach
        self._storage, self._stop = tokens if room is None else room, tokens.shape[2]
        self._own = room is not None

    def __len__(self) -> int:
        return self._stop

    @property
    def tensor(self) -> Tensor:
        """The tokens, a view."""
        return self._storage[:, :, : self._stop]

    @property
    def room(self) -> Tensor:
        """The memory that the tokens are in, [B, K, N, W]."""
        return self._storage

    @property
    def size(self) -> int:
        """Tokens that memory is held for."""
        return self._storage.shape[2]

    def append(self, tokens: Tensor) -> None:
        """Add tokens [B, K, T, W]; the last reach - 1 + T ones are there afterwards."""
        new = tokens.shape[2]
        if not self._own or self._stop + new > self.size:
            self._move(new)
        self._storage[:, :, self._stop : self._stop + new] = tokens
        self._stop += new

    def trim(self) -> None:
        """Give memory back that the tokens of a long append took and later ones do not ask for."""
        if self.reach is not None and self.size > self.reach + SPARE + 2 * ROOM:
            self._move(0)

    def crop(self, count: int) -> None:
        """Drop the last `count` tokens, or all there are."""
        self._stop = max(0, self._stop - count)

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, int64 [any]."""
        with torch.inference_mode(False):
            self._storage, self._own = self._storage.index_select(0, rows.to(self._storage.device)), True

    def _move(self, new: int) -> None:
        kept = self.tensor if self.reach is None else self.tensor[:, :, -(self.reach - 1 + SPARE) :]
        batch, heads, count, width = kept.shape
        with torch.inference_mode(False):
            storage = kept.new_empty(batch, heads, count + new + max(ROOM, count // PART), width)
        storage[:, :, :count] = kept
        self._storage, self._stop, self._own = storage, count, True


def reaches(plan: Plan) -> dict[PositionMap, int | None]:
    """How many of the last keys are asked for under each key map, tokens; None for all, under one of them at least."""
    found: dict[PositionMap, int | None] = {}
    for band in plan.bands:
        reach = None if band.region.hi is None else band.region.hi * band.region.chunk
        known = found.get(band.key, 0)
        found[band.key] = None if known is None or reach is None else max(known, reach)
    if None not in found.values():  # a window over all bands, in a cache that holds more
        found[plan.bands[0].key] = None
    return found


def unsupported(plan: Plan) -> str | None:
    """Why keys under a plan are not held rotated, or None when they are."""
    if plan.bidirectional:
        return "tokens see later ones"
    maps = reaches(plan)
    if any(to.per_head for to in maps):
        return "query heads that share a key rotate it differently"
    if sum(reach is None for reach in maps.values()) > 1:
        return "every key is needed under more than one key map"
    return None


class RotatedKeys:
    """The keys of one layer, rotated by every key map of a plan.

    Slot s of a row holds position s - origin; slots before the origin are padding and hold anything.

    Args:
        keys: un-rotated keys [B, K, S, D], without gradients.
        new: how many of them are queried now, T.
        origins: the slot of every row's first token, [B].
        tables: gives cos and sin.
        room: memory that begins with these keys, [B, K, N, D]: the full-length copy takes their place in it. None: it
            has memory of its own, which grows.

    Attributes:
        length: slots, S.
    """

    def __init__(
        self,
        keys: Tensor,
        new: int,
        plan: Plan,
        *,
        spec: RotarySpec,
        layer: int,
        origins: Sequence[int],
        tables: Tables,
        room: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.spec = spec
        self.layer = layer
        self.origins = list(origins)
        self.length = keys.shape[2]
        self._tables = tables
        self._buffers: dict[PositionMap, Buffer] = {}
        for to, reach in reaches(plan).items():
            first = 0 if reach is None else max(0, self.length - (reach - 1 + SPARE) - new)
            self._buffers[to] = Buffer(self._turn(keys[:, :, first:], to, first), reach)
            if reach is None:
                self._whole = to
        if room is not None:
            room[:, :, : self.length] = self._buffers[self._whole].tensor
            self._buffers[self._whole] = Buffer(room[:, :, : self.length], room=room)

    @property
    def whole(self) -> Buffer:
        """The full-length copy."""
        return self._buffers[self._whole]

    @property
    def size(self) -> int:
        """Tokens per row that memory is held for, over all maps."""
        return sum(buffer.size for buffer in self._buffers.values())

    def belong_to(self, plan: Plan, spec: RotarySpec, layer: int, origins: Sequence[int]) -> bool:
        """True when the keys are rotated as this plan wants them; an origin of -1 stands for any."""
        layered = plan.table.per_layer or any(band.key.per_layer for band in plan.bands)
        return (
            (plan is self.plan or plan == self.plan)
            and (spec is self.spec or spec == self.spec)
            and (layer == self.layer or not layered)
            and len(origins) == len(self.origins)
            and all(asked in (-1, known) for asked, known in zip(origins, self.origins, strict=True))
        )

    def append(self, keys: Tensor) -> None:
        """Rotate new keys, un-rotated [B, K, T, D], once by every map."""
        for to, buffer in self._buffers.items():
            buffer.append(self._turn(keys, to, self.length))
        self.length += keys.shape[2]

    def trim(self) -> None:
        """Let go of what only the last queries asked for."""
        for buffer in self._buffers.values():
            buffer.trim()

    def crop(self, count: int) -> None:
        """Drop the last `count` slots; keys that come back within a band's reach are made from the full-length copy."""
        for buffer in self._buffers.values():
            buffer.crop(count)
        self.length -= count
        self.recall(0)

    def recall(self, new: int) -> None:
        """Have under every map what the last `new` queries ask for: what was cropped or let go is made anew."""
        for to, buffer in self._buffers.items():
            if buffer.reach is not None and len(buffer) < min(self.length, buffer.reach - 1 + new):
                first = max(0, self.length - (buffer.reach - 1 + SPARE) - new)
                keys = self._turn(self._wide(first), to, first)
                self._buffers[to] = Buffer(keys.to(buffer.tensor.dtype), buffer.reach)

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, int64 [any]: beams reordered, rows repeated or left out."""
        for buffer in self._buffers.values():
            buffer.select(rows)
        self.origins = [self.origins[row] for row in rows.tolist()]

    def unrotated(self) -> Tensor:
        """The keys turned back, [B, K, S, D]."""
        return self._wide(0).to(self.whole.tensor.dtype)

    def part(self, rows: "slice | Tensor", slots: slice) -> dict[PositionMap, Tensor]:
        """For some rows, the last n keys up to `slots.stop` under each map, [rows, K, n, D]; none before `slots`."""
        found = {}
        for to, buffer in self._buffers.items():
            skipped = self.length - len(buffer)
            found[to] = buffer.tensor[rows][:, :, max(0, slots.start - skipped) : slots.stop - skipped]
        return found

    def _wide(self, first: int) -> Tensor:
        """Un-rotated keys of the slots from `first` on, at least float32."""
        keys = self.whole.tensor[:, :, first:]
        return self._turn(keys.to(torch.promote_types(keys.dtype, torch.float32)), self._whole, first, back=True)

    def _turn(self, keys: Tensor, to: PositionMap, first: int, *, back: bool = False) -> Tensor:
        """Rotate keys [B, K, T, D] of the slots from `first` on by a map, or turn them back."""
        stop, origin = first + keys.shape[2], min(self.origins)
        alike = origin == max(self.origins) and origin <= first
        positions = range(first - origin, stop - origin)
        if alike and not back:
            return self._tables.turn(keys, to, self.plan, self.layer, positions, self.spec)
        if alike:
            cos, sin = self._tables.get(to, self.plan, self.layer, positions, keys.device)
        else:  # all rows at once; padding before a row is turned like its first token
            begin = torch.tensor(self.origins, device=keys.device)[:, None]
            places = (torch.arange(first, stop, device=keys.device) - begin).clamp(min=0)
            cos, sin = self._tables.of_rows(to, self.plan, self.layer, places, max(1, stop - origin))
        if back:
            square = self.plan.table.attention_scaling**2  # cos and sin carry the attention scaling, undone as well
            cos, sin = cos / square, -sin / square
        return rotate(keys, cos, sin, self.spec)
