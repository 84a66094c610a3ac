"""The sequences that are drawn from training documents."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ropewalk.errors import TrainingError
from ropewalk.train.collator import Example
from ropewalk.train.positions import Sampler

ORDER, DRAW = range(2)  # what a generator is for


class Sequences:
    """A training set: `count` sequences, each a function of the seed and its index alone.

    So a run that is resumed, spread over processes or loaded by workers sees what an unbroken one sees. Every piece of
    the documents comes once an epoch, in an order of the epoch, with positions drawn anew.

    Args:
        documents: token ids, int64 each.
        sampler: of positions.
        length: tokens of a sequence.
        count: sequences in all.
        seed: of order and positions.

    Attributes:
        pieces: what the documents are cut into: document, first token, tokens. What is left of a document after its
            last whole sequence is left out.

    Raises:
        TrainingError: no document is as long as a sequence.
    """

    def __init__(
        self, documents: Sequence[np.ndarray], sampler: Sampler, *, length: int, count: int, seed: int
    ) -> None:
        self.documents = documents
        self.sampler = sampler
        self.length = length
        self.count = count
        self.seed = seed
        self.pieces = cut(documents, length * sampler.stretch, length)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(index)
        number, start, size = self.pieces[shuffled(self.seed, index, len(self.pieces))]
        generator = np.random.default_rng([self.seed, DRAW, index])
        drawn = self.sampler.draw(generator, self.length, size)
        return Example.of(self.documents[number][start : start + size], drawn)


def cut(documents: Sequence[np.ndarray], size: int, least: int) -> list[tuple[int, int, int]]:
    """Pieces of up to `size` tokens, at least `least`: document, first token, tokens.

    Raises:
        TrainingError: there is none.
    """
    pieces = [
        (number, start, min(size, len(document) - start))
        for number, document in enumerate(documents)
        for start in range(0, len(document), size)
        if len(document) - start >= least
    ]
    if not pieces:
        longest = max((len(document) for document in documents), default=0)
        raise TrainingError(
            f"no document has {least} tokens (the longest of {len(documents)} has {longest}); give longer documents, "
            "train on shorter sequences, or join the documents"
        )
    return pieces


def shuffled(seed: int, index: int, count: int) -> int:
    """Which of `count` pieces comes at an index: all of them once an epoch, in an order of the epoch."""
    epoch, place = divmod(index, count)
    return int(_order(seed, epoch, count)[place])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)
