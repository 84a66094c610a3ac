"""Frequent words extraction: coded words whose frequencies follow a zeta law; the most frequent one is dots."""

import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.evaluate.ruler.base import Body, Family, Setting, Unit
from ropewalk.evaluate.ruler.metrics import Metric, string_match_all
from ropewalk.evaluate.ruler.wording import FREQUENT_WORDS, Wording

DOTS = "..."
ANSWERS = slice(1, 4)
# zeta(2): the exponent of the law is 2.
ZETA = math.pi**2 / 6
# Ranks 2 to 4 and the one after them.
VOCABULARY = 5
# From here on rank 4 stands more often than rank 5: floor(t / 16) > floor(t / 25) for all t >= 32.
LEAST_T = 32


@dataclass(frozen=True)
class FrequentWords(Family):
    """Rank k of the vocabulary stands int(N / (k^2 zeta(2))) times; ranks 2 to 4 are asked for.

    The vocabulary has (length - 50) // 50 words, as NVIDIA's, but never fewer than VOCABULARY.
    """

    grows = True
    # Rank 4 stands once.
    fewest = math.ceil(4**2 * ZETA)

    @property
    def wording(self) -> Wording:
        return FREQUENT_WORDS

    @property
    def metric(self) -> Metric:
        return string_match_all

    @property
    def between(self) -> str:
        return " "

    def step(self, length: int) -> int:
        """A 32nd of the prompt's tokens."""
        return max(1, (length - FREQUENT_WORDS.tokens_to_generate) // 32)

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        """`units` is N; the permutations of vocabulary and text are the same in every sample."""
        vocabulary = sorted(_coded(rng, _vocabulary_size(setting.length)))
        setting.fixed().shuffle(vocabulary)
        vocabulary[0] = DOTS
        text = [word for rank, word in enumerate(vocabulary, start=1) for _ in range(int(units * rank**-2.0 / ZETA))]
        setting.fixed().shuffle(text)
        return Body(" ".join(text), tuple(vocabulary[ANSWERS]))

    def draft(self, setting: Setting, rng: random.Random, index: int) -> "FrequentWordsDraft":
        seed = rng.random()
        vocabulary = (DOTS, *_coded(rng, _vocabulary_size(setting.length) - 1))
        return FrequentWordsDraft(vocabulary, setting.length, seed)


@dataclass(frozen=True)
class FrequentWordsDraft:
    """The text grows word by word so that its first words always have the counts of the law.

    With t = N / zeta(2), the j-th word of rank k comes when t reaches j k^2: sorted by that, every beginning is a text.
    """

    vocabulary: tuple[str, ...]
    length: int
    seed: float

    @property
    def least(self) -> int:
        return sum(LEAST_T // rank**2 for rank in range(1, len(self.vocabulary) + 1))

    def units(self) -> Iterator[Unit]:
        """As many as `length` tokens can hold, and again as many, at one token a word or more."""
        last = 2 * self.length + LEAST_T
        ranks = np.arange(1, len(self.vocabulary) + 1)
        counts = last // ranks**2
        ranks = np.repeat(ranks, counts)
        nth = np.concatenate([np.arange(1, count + 1) for count in counts])
        for rank in ranks[np.lexsort((ranks, nth * ranks**2))].tolist():
            word = self.vocabulary[rank - 1]
            yield Unit(word, f" {word}")

    def body(self, units: Sequence[Unit]) -> Body:
        text = [unit.text for unit in units]
        random.Random(self.seed).shuffle(text)
        return Body(" ".join(text), self.vocabulary[ANSWERS])


def _vocabulary_size(length: int) -> int:
    return max(VOCABULARY, (length - FREQUENT_WORDS.tokens_to_generate) // 50)


def _coded(rng: random.Random, count: int) -> list[str]:
    """Different words of six letters."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    return list(words)
