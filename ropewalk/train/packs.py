"""The rows of mixed-window training: packs of short documents, and long stretches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.errors import TrainingError
from ropewalk.train.collator import Example
from ropewalk.train.data import cut, shuffled
from ropewalk.train.positions import SAMPLERS, Drawn, Generator, Sampler, require_document, require_range

Piece = tuple[int, int, int]  # document, first token, tokens


@SAMPLERS.register("mixed")
@dataclass(frozen=True, kw_only=True)
class Mixed(Sampler):
    """mixed: short documents under the short table, long ones under the rescaled one (arXiv 2502.20082, section 3.3).

    Attributes:
        pretrained_length: L; documents of a pack are cut at as many tokens.
        target_length: L', tokens.
        short: share of rows that are packs; .3 in the paper, by tokens.
    """

    name: ClassVar[str] = "mixed"
    paper: ClassVar[str] = "arXiv 2502.20082"

    pretrained_length: int
    target_length: int
    short: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.short < 1:
            raise TrainingError(f"mixed: the share of short rows must lie between 0 and 1, got {self.short}")

    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        """A long row; what is no longer than the window is a short one."""
        require_document(length, document)
        require_range(self.name, length, self.target_length)
        time = self.target_length / self.pretrained_length if length > self.pretrained_length else 1.0
        return Drawn(np.arange(length), np.arange(length, dtype=np.float64), time)


class MixedSequences:
    """A training set of packs and long stretches in a fixed share; each row is a function of the seed and its index.

    A pack is filled with documents up to the window, one after the other; where there are none, longer ones are cut.
    Its documents do not see each other, so that no distance in it is longer than the window.

    Args:
        documents: token ids each.
        sampler: `mixed`.
        length: tokens of a row, more than the window.
        count: rows in all.
        seed: of the order.

    Raises:
        TrainingError: rows no longer than the window, no document as long as a row, or too few tokens for a pack.
    """

    def __init__(self, documents: Sequence[np.ndarray], sampler: Mixed, *, length: int, count: int, seed: int) -> None:
        window = sampler.pretrained_length
        if length <= window:
            raise TrainingError(
                f"mixed windows take rows beyond the {window} tokens of the short table, got {length}; raise the length"
            )
        self.documents = documents
        self.sampler = sampler
        self.length = length
        self.count = count
        self.seed = seed
        self.long = cut(documents, length, length)
        short = [number for number, document in enumerate(documents) if 1 < len(document) <= window]
        pieces = [
            (number, start, min(window, len(documents[number]) - start))
            for number in short or range(len(documents))
            for start in range(0, len(documents[number]), window)
        ]
        self.packs = list(_filled(pieces, length))
        if not self.packs:
            raise TrainingError(f"the short documents together have fewer tokens than a row of {length}; give more")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(index)
        before, after = (int(one * self.sampler.short) for one in (index, index + 1))
        if before == after:
            number, start, size = self.long[shuffled(self.seed, index - before, len(self.long))]
            drawn = self.sampler.draw(np.random.default_rng(0), size, size)
            return Example.of(self.documents[number][start : start + size], drawn)
        pack = self.packs[shuffled(self.seed, before, len(self.packs))]
        ids = np.concatenate([self.documents[number][start : start + size] for number, start, size in pack])
        segments = np.repeat(np.arange(len(pack)), [size for _, _, size in pack])
        place = np.arange(self.length)
        return Example(ids, Drawn(place, place.astype(np.float64)), segments)


def _filled(pieces: Sequence[Piece], length: int) -> Iterator[list[Piece]]:
    """Packs of exactly `length` tokens; a piece that does not fit goes on in the next, what is left is left out."""
    pack: list[Piece] = []
    room = length
    for number, start, size in pieces:
        while size:
            taken = min(room, size)
            pack.append((number, start, taken))
            start, size, room = start + taken, size - taken, room - taken
            if room == 0:
                yield pack
                pack, room = [], length
