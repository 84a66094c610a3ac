"""The mask that carries key positions: what transformers hands from the model to our attention function.

transformers builds its masks through `AttentionMaskInterface`. Ours is a small int64 tensor [B, 1, 6, S] in place of a
boolean one of T x S: it survives `generate`, which prepares masks early and passes 4-D tensors on untouched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.errors import ModelError

POSITION, WINDOW, SEGMENT, OFFSET, AHEAD, MARK = range(6)  # rows
ROWS = 6
OURS = 0x726F7065  # in row MARK, so that no other int64 mask is taken for ours


def position_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int | Tensor = 0,
    mask_function: Callable[..., Any],
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    device: torch.device | str = "cpu",
    **ignored: Any,
) -> Tensor:
    """The mask function that is registered with transformers.

    Returns:
        int64 [B, 1, 6, S]: the number of each key among the visible keys of its row (-1: padding or an unwritten
        slot); the model's own window in tokens, the query's own included (0: none, negative: chunks of so many tokens,
        which are told from windows for a single token only, as the probe has it); the packed document that the key
        belongs to; the slot of the first query; whether tokens see later ones; a mark.
    """
    slots = torch.arange(kv_length, device=device) + kv_offset
    written = (slots < q_offset + q_length).expand(batch_size, -1)
    if attention_mask is None:
        number = slots.expand(batch_size, -1)
        visible = written
    else:
        padded = torch.nn.functional.pad(
            attention_mask, (0, max(0, kv_length + int(kv_offset) - attention_mask.shape[1]))
        )
        number = (padded.long().cumsum(-1) - 1)[:, slots]
        visible = written & padded[:, slots].bool()
    mask = torch.zeros(batch_size, 1, ROWS, kv_length, dtype=torch.int64, device=device)
    mask[:, 0, POSITION] = torch.where(visible, number, -1)
    mask[:, 0, WINDOW] = local_size or 0
    mask[:, 0, OFFSET] = q_offset - kv_offset
    mask[:, 0, MARK] = OURS
    if q_length == kv_length:
        if torch.compiler.is_compiling():
            _look_ahead(mask, mask_function, local_size)
        elif q_length == 1 and local_size is not None and not _sees_last(mask_function, local_size, device):
            mask[:, 0, WINDOW] = -local_size
        elif _sees_ahead(mask_function, q_length, torch.device(device)):
            mask[:, 0, AHEAD] = 1
            if local_size is not None:  # families differ in whether the distance of that many tokens is seen
                edge = torch.as_tensor(mask_function(*torch.tensor([0, 0, local_size, 0], device=device)))
                mask[:, 0, WINDOW] = local_size + int(edge)
        if attention_mask is None and q_length > 1:
            mask[:, 0, SEGMENT] = _segments(mask_function, batch_size, q_length, torch.device(device))
    return mask


def _sees_last(mask_function: Callable[..., Any], local_size: int, device: torch.device | str) -> bool:
    """Whether the first token after that many sees the one before it: in a window it does, in chunks it does not."""
    zero = torch.zeros(1, 1, dtype=torch.int64, device=device)
    return bool(torch.as_tensor(mask_function(zero, zero, zero + local_size, zero + local_size - 1)).any())


def _look_ahead(mask: Tensor, mask_function: Callable[..., Any], local_size: int | None) -> None:
    """Fill in what `_sees_ahead` tells without reading it on the host; it was read when the model was extended."""
    zero = torch.zeros(1, 1, dtype=torch.int64, device=mask.device)
    ahead = torch.as_tensor(mask_function(zero, zero, zero, zero + 1)).any().long()
    mask[:, 0, AHEAD] = ahead
    if local_size is not None:
        edge = torch.as_tensor(mask_function(zero, zero, zero + local_size, zero)).any().long()
        mask[:, 0, WINDOW] = local_size + ahead * edge


def _sees_ahead(mask_function: Callable[..., Any], length: int, device: torch.device) -> bool:
    """Whether tokens see later ones as they see earlier ones; ModelError where some see later ones and some do not."""
    zero = torch.zeros(1, 1, dtype=torch.int64, device=device)
    if not bool(torch.as_tensor(mask_function(zero, zero, zero, zero + 1)).any()):
        return False
    tokens = torch.arange(1, max(2, length), device=device)[None, :]
    ahead, back = (
        torch.as_tensor(mask_function(zero, zero, *pair)) for pair in ((tokens - 1, tokens), (tokens, tokens - 1))
    )
    if not torch.equal(ahead, back):
        raise ModelError(
            "cannot be extended: it lets some tokens see later ones and others not (a prefix mask); ropewalk extends "
            "causal models and encoders"
        )
    return True


def _segments(mask_function: Callable[..., Any], batch: int, length: int, device: torch.device) -> Tensor:
    """Which packed document each token belongs to: a token that may not see its neighbour begins a new one."""
    zero = torch.zeros(1, 1, dtype=torch.int64, device=device)
    rows = torch.arange(batch, device=device)[:, None]
    tokens = torch.arange(1, length, device=device)[None, :]
    joined = torch.as_tensor(mask_function(rows, zero, tokens, tokens - 1), device=device).expand(batch, length - 1)
    return torch.nn.functional.pad((~joined.bool()).long().cumsum(-1), (1, 0))


@dataclass(frozen=True)
class Sequence:
    """Tokens that see one another and nothing else: one document of one or more rows.

    Attributes:
        rows: batch rows that share this shape, int64 tensor, or None for all of them.
        keys: slots of the keys.
        queries: which of the T queries belong to it; they are the last of its keys.
        positions: token positions of the keys from 0 on, int64 [S], or None where they are 0, 1, 2, ...
    """

    rows: Tensor | None
    keys: slice
    queries: slice
    positions: Tensor | None = None

    @property
    def length(self) -> int:
        """One more than the largest position, tokens."""
        return self.keys.stop - self.keys.start if self.positions is None else int(self.positions[-1]) + 1


def window_of(mask: Tensor) -> int | None:
    """The model's own window that the mask carries, tokens."""
    return abs(int(mask[0, 0, WINDOW, 0])) or None


def in_chunks(mask: Tensor) -> bool:
    """Whether what the mask of a single token carries as a window are chunks."""
    return int(mask[0, 0, WINDOW, 0]) < 0


def sees_ahead(mask: Tensor) -> bool:
    """Whether tokens see later ones, by the mask."""
    return bool(mask[0, 0, AHEAD, 0])


def sequences(mask: Tensor, queries: int, position_ids: Tensor | None) -> list[Sequence]:
    """Cut a batch into sequences of visible keys; queries that are padding belong to none.

    Positions count from the first visible key of each sequence, so that a padded row equals the same row alone.

    Args:
        mask: what `position_mask` returned.
        queries: T.
        position_ids: [B or 1, T], or None. They matter where the queries are all there is (no cached past).
    """
    if int(mask[0, 0, MARK, 0]) != OURS:
        raise ModelError("a 4-D attention mask was given by hand; pass a 2-D mask of padding")
    offset = int(mask[0, 0, OFFSET, 0])
    stop = offset + queries
    number, segment = mask[:, 0, POSITION, :stop], mask[:, 0, SEGMENT, :stop]
    positions = number
    if position_ids is not None and offset == 0:
        positions = torch.where(number >= 0, position_ids.expand(number.shape[0], -1).to(number), -1)
    whole = bool((number >= 0).all()) and not bool(segment.any())
    if whole and (stop == 1 or bool((positions.diff(dim=-1) == 1).all())):
        return [Sequence(None, slice(0, stop), slice(0, queries))]
    number, segment, positions = number.cpu(), segment.cpu(), positions.cpu()  # each row is looked at several times
    shapes: dict[tuple[int, int, tuple[int, ...]], list[int]] = {}
    for row in range(number.shape[0]):
        visible = (number[row] >= 0).nonzero().flatten()
        for document in segment[row, visible].unique_consecutive():
            slots = visible[segment[row, visible] == document]
            first, last = int(slots[0]), int(slots[-1]) + 1
            if last - first != len(slots):
                raise ModelError("the attention mask has holes between visible tokens; pad on the left or on the right")
            if last > offset:
                steps = _steps(positions[row, first:last])
                shapes.setdefault((first, last, steps), []).append(row)
    result = []
    for (first, last, steps), rows in shapes.items():
        these = None if len(rows) == number.shape[0] else torch.tensor(rows)
        gaps = torch.tensor(steps, device=mask.device) if steps else None
        result.append(Sequence(these, slice(first, last), slice(max(first, offset) - offset, last - offset), gaps))
    return result


def _steps(positions: Tensor) -> tuple[int, ...]:
    """Positions from 0 on where they have gaps; nothing where they are consecutive."""
    steps = positions.diff()
    if bool((steps == 1).all()):
        return ()
    if bool((steps <= 0).any()):
        raise ModelError("position ids must grow from token to token within a document")
    return tuple((positions - positions[0]).tolist())


def dense_mask(mask: Tensor, queries: int, dtype: torch.dtype) -> Tensor:
    """The additive mask [B, 1, T, S] that transformers' eager attention would have had."""
    slots = torch.arange(mask.shape[-1], device=mask.device)
    asking = mask[:, 0, OFFSET, :1] + torch.arange(queries, device=mask.device)  # [B, T]
    distance = asking[:, :, None] - slots
    distance = distance.abs() if sees_ahead(mask) else distance
    seen = (mask[:, 0, POSITION] >= 0)[:, None, :] & (distance >= 0)
    window = window_of(mask)
    if window is not None:
        seen &= distance < window
    segment = mask[:, 0, SEGMENT]
    seen &= segment.gather(1, asking.clamp(max=mask.shape[-1] - 1))[:, :, None] == segment[:, None, :]
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(seen[:, None], zero, torch.finfo(dtype).min)
