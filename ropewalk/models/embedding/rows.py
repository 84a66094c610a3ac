"""Which row of the longer table every token takes: of each text by itself, wherever padding stands beside it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.errors import MethodError
from ropewalk.models.embedding.table import PositionTable


@dataclass(frozen=True)
class Placed:
    """The positions of one batch.

    Attributes:
        rows: of the longer table, int64 [B, T].
        lengths: tokens of each text, int64 [B].
    """

    rows: Tensor
    lengths: Tensor


def visible(table: PositionTable, ids: Tensor | None, mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Which places hold a token, bool [B, T]: by the rule of the model, where it has one for padding, else by the mask.

    Raises:
        MethodError: an attention mask of another shape.
    """
    if table.padding_id is not None and ids is not None:
        return ids.ne(table.padding_id)
    if mask is None:
        return torch.ones(shape, dtype=torch.bool)
    if mask.ndim != 2:
        raise MethodError(
            f"an attention mask of shape {tuple(mask.shape)} does not say how long each text is; give one of shape "
            f"{shape}, 1 for tokens and 0 for padding"
        )
    return mask.bool()


def place(table: PositionTable, there: Tensor, *, stride: int, target_length: int) -> Placed:
    """The row of every token; a text within the trained length takes the original rows, every stride-th.

    Tokens count from the first one of their text. Where the model has no row for padding, padded places take any.

    Args:
        there: which places hold a token, bool [B, T].

    Raises:
        MethodError: a text is longer than the target.
    """
    if table.padding is None:
        count = torch.arange(there.shape[1], device=there.device).expand(there.shape)
        outside = there.shape[1]
        first = torch.where(there, count, outside).amin(-1, keepdim=True)
        last = torch.where(there, count, -1).amax(-1, keepdim=True)
        lengths = (last - first + 1).clamp(min=0)
        positions = (count - first).minimum(lengths - 1).clamp(min=0)
    else:
        positions = (there.long().cumsum(-1) - 1).clamp(min=0)
        lengths = there.long().sum(-1, keepdim=True)
    longest = int(lengths.amax())
    if longest > target_length:
        raise MethodError(
            f"a text has {longest} tokens, and the model was extended to {target_length}; cut the text, "
            "or extend to a longer target"
        )
    rows = table.offset + positions * torch.where(lengths <= table.pretrained_length, stride, 1)
    if table.padding is not None:
        rows = torch.where(there, rows, table.padding)
    return Placed(rows, lengths[:, 0])


def shifted(table: PositionTable, there: Tensor, starts: Tensor) -> Tensor:
    """The rows of texts that begin at given positions of the longer table, int64 [B, T].

    Args:
        there: which places hold a token, bool [B, T], padded on the right.
        starts: position of the first token of each text, [B].
    """
    rows = table.offset + starts[:, None] + (there.long().cumsum(-1) - 1).clamp(min=0)
    return rows if table.padding is None else torch.where(there, rows, table.padding)
