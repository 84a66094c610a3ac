"""Training pairs made offline from a text: a title and its passage, or two passages that stand side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.errors import EvaluationError, TrainingError
from ropewalk.evaluate import corpus

TITLE = 80  # characters; chapters of the novel and titles of the addresses have fewer
PASSAGE = 200  # characters; shorter paragraphs say too little to be told apart
QUOTES = "\"'“‘"  # short paragraphs of dialogue are no titles
ORDER, START = range(2)  # what a generator is for


def read_pairs(sources: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of texts that belong together, in order; no passage stands in two of them.

    A short paragraph is the title of the passage behind it. Every other passage goes with its neighbour.

    Args:
        sources: names of bundled texts, or `.txt` files.

    Raises:
        TrainingError: a text that cannot be read, or one without two passages.
    """
    found: list[tuple[str, str]] = []
    for source in sources:
        try:
            paragraphs = corpus.paragraphs(source)
        except EvaluationError as error:
            raise TrainingError(f"cannot train on {source!r}: {error}") from error
        before, count = None, len(found)
        for paragraph in paragraphs:
            if len(paragraph) >= PASSAGE:
                if before is not None:
                    found.append((before, paragraph))
                before = paragraph if before is None else None
            else:
                title = len(paragraph) <= TITLE and paragraph[0] not in QUOTES
                before = paragraph if title else None
        if len(found) == count:
            raise TrainingError(
                f"{source!r} has no two passages of {PASSAGE} characters side by side; separate paragraphs by blank "
                "lines"
            )
    return found


@dataclass(frozen=True)
class DrawnPair:
    """One pair of a run.

    Attributes:
        texts: token ids of the query and of the passage.
        starts: position of the first token of each.
    """

    texts: tuple[list[int], list[int]]
    starts: tuple[int, int]


class Pairs:
    """A training set: `count` pairs, each a function of the seed and its index alone, so that a run can go on.

    Every pair comes once an epoch, in an order of the epoch. Each text starts at u ~ U{0 .. target - trained}
    (arXiv 2404.12096), drawn anew, so that short texts reach every row.

    Args:
        pairs: of texts.
        tokenizer: of the model.
        length: tokens that a text is cut at.
        last_start: target - trained, tokens.
        count: pairs in all.
        seed: of order and starts.

    Raises:
        TrainingError: there are no pairs.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Any,
        *,
        length: int,
        last_start: int,
        count: int,
        seed: int,
    ) -> None:
        if not pairs:
            raise TrainingError("there are no pairs to train on; give texts")
        cut = {"truncation": True, "max_length": length}
        self.texts = [(tokenizer(one, **cut)["input_ids"], tokenizer(two, **cut)["input_ids"]) for one, two in pairs]
        self.last_start = last_start
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DrawnPair:
        if not 0 <= index < self.count:
            raise IndexError(index)
        epoch, place = divmod(index, len(self.texts))
        order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.texts))
        starts = np.random.default_rng([self.seed, START, index]).integers(0, self.last_start + 1, 2)
        return DrawnPair(self.texts[order[place]], (int(starts[0]), int(starts[1])))
