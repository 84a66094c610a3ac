"""Batches of drawn sequences that transformers cannot take for packed documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ropewalk.errors import TrainingError
from ropewalk.train.positions import Drawn

IGNORED = -100  # the label that transformers' losses leave out


@dataclass(frozen=True)
class Example:
    """One training sequence with its token ids.

    Attributes:
        ids: int64 [n], the ids of the drawn tokens.
        drawn: where they stand.
        segments: int64 [n], ascending, which document of a pack each token is of; None: all of one. Documents of a
            pack do not see each other.
    """

    ids: np.ndarray
    drawn: Drawn
    segments: np.ndarray | None = None

    @classmethod
    def of(cls, document: np.ndarray, drawn: Drawn) -> "Example":
        """The drawn tokens of a document of ids, int64 [document]."""
        return cls(np.asarray(document)[drawn.tokens], drawn)


def collate(examples: Sequence[Example], *, padding: int = 0) -> dict[str, Tensor]:
    """A batch padded on the right, always with an attention mask.

    Given positions that jump and no attention mask, transformers reads every jump as the border of a packed document
    and blocks attention across it, so that PoSE, random positions, E2-LLM and CLEX would silently train on nothing
    long. A mask, all ones too, makes a row one document; so there is no way to have this batch without one.

    Args:
        examples: at least one.
        padding: id of padded places; they are masked and have no label.

    Returns:
        input_ids, labels, attention_mask: int64 [B, T]; a token that does not follow the one before it in its document
            (PoSE's second chunk, the next of a pack) has no label, since nothing before it could tell.
        attention_mask, where a row is a pack: bool [B, 1, T, T], causal and within documents.
        position_ids: [B, T], int64 where all are whole numbers, else float64; they go on by 1 in the padding.
        time: float64 [B], the length factor of each row's table. No argument of a model: take it out before the call.

    Raises:
        TrainingError: no examples, one without a token to learn from, or positions that do not belong to its ids.
    """
    if not examples:
        raise TrainingError("a batch of no sequences was asked for; give at least one")
    width = max(len(example.ids) for example in examples)
    shape = (len(examples), width)
    ids, mask = np.full(shape, padding, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    labels, positions = np.full(shape, IGNORED, dtype=np.int64), np.zeros(shape)
    for row, example in enumerate(examples):
        count = len(example.ids)
        if len(example.drawn.positions) != count:
            raise TrainingError(
                f"{len(example.drawn.positions)} positions were drawn for {count} tokens; draw them anew"
            )
        if count < 2:
            raise TrainingError(f"a sequence of {count} tokens has nothing to predict; leave such documents out")
        ids[row, :count], mask[row, :count] = example.ids, 1
        labels[row, :count] = np.where(example.drawn.jumps | _starts(example), IGNORED, example.ids)
        positions[row, :count] = example.drawn.positions
        positions[row, count:] = example.drawn.positions[-1] + 1 + np.arange(width - count)
    whole = bool((positions == np.floor(positions)).all())
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": _seen(examples, mask),
        "position_ids": torch.from_numpy(positions).long() if whole else torch.from_numpy(positions),
        "time": torch.tensor([example.drawn.time for example in examples], dtype=torch.float64),
    }


def _starts(example: Example) -> np.ndarray:
    """First tokens of the second and later documents of a pack, bool [n]."""
    found = np.zeros(len(example.ids), dtype=bool)
    if example.segments is not None:
        found[1:] = np.diff(example.segments) != 0
    return found


def _seen(examples: Sequence[Example], mask: np.ndarray) -> Tensor:
    """The attention mask: that of the padding, [B, T], or what sees what, [B, 1, T, T], where a row is a pack."""
    if all(example.segments is None for example in examples):
        return torch.from_numpy(mask)
    segments = np.zeros(mask.shape, dtype=np.int64)
    for row, example in enumerate(examples):
        if example.segments is not None:
            segments[row, : len(example.ids)] = example.segments
    segments = np.where(mask == 1, segments, -1)  # padding sees padding, so that no row of attention is empty
    causal = np.tri(mask.shape[1], dtype=bool)
    return torch.from_numpy((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]


def require_mask(position_ids: Tensor | None, attention_mask: Tensor | None) -> None:
    """Raise TrainingError when a forward would take positions that jump for packed documents."""
    if attention_mask is None and position_ids is not None and bool((position_ids.diff(dim=-1) != 1).any()):
        raise TrainingError(
            "positions jump and there is no attention mask, so transformers would block attention at every jump; batch "
            "sequences with ropewalk.train.collate, or pass a mask of ones"
        )
