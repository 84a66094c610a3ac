"""Common words extraction: a numbered list in which ten words stand more often than all others."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ropewalk.evaluate.ruler.base import Body, Family, Setting, Unit
from ropewalk.evaluate.ruler.metrics import Metric, string_match_all
from ropewalk.evaluate.ruler.template import NOTHING, Frame
from ropewalk.evaluate.ruler.wording import COMMON_WORDS, Wording
from ropewalk.evaluate.ruler.words import Words

COMMON = 10


@dataclass(frozen=True)
class Repeats:
    """How often a common and another word stand in a list, and how many words the example has."""

    common: int
    other: int


@dataclass(frozen=True)
class CommonWords(Family):
    """Ten words 30 times and others 3 times (6 and 1 below 4096 tokens), after an example with ten common words."""

    probe = 4096
    slack = 2
    fewest = COMMON

    @property
    def wording(self) -> Wording:
        return COMMON_WORDS

    @property
    def metric(self) -> Metric:
        return string_match_all

    @property
    def between(self) -> str:
        return r" (?=\d+\. )"

    def step(self, length: int) -> int:
        return 10

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        """`units` different words; past the bundled ones, compounds, where NVIDIA has a list of 8.6 MB.

        The example is a turn of its own.
        """
        example, own, shot_words = _sizes(setting.length)
        shot = rng.sample(setting.pool, shot_words)
        words = _sample(setting, rng, units)
        shot_list = [*shot[:COMMON] * example.common, *shot[COMMON:] * example.other]
        listed = [*words[:COMMON] * own.common, *words[COMMON:] * own.other]
        setting.fixed().shuffle(shot_list)
        setting.fixed().shuffle(listed)
        example_text = _example(shot_list, shot[:COMMON], setting.frame)
        return Body(_numbered(listed), tuple(words[:COMMON]), ahead=example_text)

    def draft(self, setting: Setting, rng: random.Random, index: int) -> "CommonWordsDraft":
        """No common word is part of another; example and list share no word; each sample has its own permutation."""
        example, own, shot_words = _sizes(setting.length)
        order = rng.sample(setting.pool, len(setting.pool))
        common: list[str] = []
        for word in order:
            if len(common) < COMMON and not any(word in other or other in word for other in common):
                common.append(word)
        rest = [word for word in order if word not in common]
        shot = [rest.pop() for _ in range(shot_words)]
        shot_list = [*shot[:COMMON] * example.common, *shot[COMMON:] * example.other]
        rng.shuffle(shot_list)
        return CommonWordsDraft(
            tuple(common), tuple(rest), setting.words, own, tuple(shot_list), tuple(shot[:COMMON]), rng.random()
        )


@dataclass(frozen=True)
class CommonWordsDraft:
    """The list grows by one word at a time: the common ones first, then each other one as often as it may stand."""

    common: tuple[str, ...]
    rest: tuple[str, ...]
    words: Words
    repeats: Repeats
    shot: tuple[str, ...]
    shot_answer: tuple[str, ...]
    seed: float

    @property
    def least(self) -> int:
        return len(self.common) * self.repeats.common + self.repeats.other

    def units(self) -> Iterator[Unit]:
        for number, word in enumerate(self._listed(), start=1):
            yield Unit(word, f" {number}. {word}")

    def body(self, units: Sequence[Unit]) -> Body:
        listed = [unit.text for unit in units]
        random.Random(self.seed).shuffle(listed)
        return Body(_numbered(listed), self.common, shot=_example(self.shot, self.shot_answer))

    def _listed(self) -> Iterator[str]:
        for word in self.common:
            yield from [word] * self.repeats.common
        for word in self.rest:
            yield from [word] * self.repeats.other
        for word in _compounds(self.words, random.Random(self.seed)):
            yield from [word] * self.repeats.other


def _sizes(length: int) -> tuple[Repeats, Repeats, int]:
    """Repeats in the example and in the list, and different words of the example (common_words_extraction.py)."""
    if length < 4096:
        return Repeats(3, 1), Repeats(6, 1), 20
    return Repeats(10, 3), Repeats(30, 3), 40


def _sample(setting: Setting, rng: random.Random, count: int) -> list[str]:
    pool = setting.pool
    words = rng.sample(pool, min(count, len(pool)))
    more = _compounds(setting.words, rng)
    return words + [next(more) for _ in range(count - len(words))]


def _compounds(words: Words, rng: random.Random) -> Iterator[str]:
    """Adjective-noun pairs, no pair twice: 6.2 million."""
    taken: set[str] = set()
    while True:
        word = f"{rng.choice(words.adjectives)}-{rng.choice(words.nouns)}"
        if word not in taken:
            taken.add(word)
            yield word


def _numbered(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def _example(listed: Sequence[str], answer: Sequence[str], around: Frame = NOTHING) -> str:
    """The whole wording with `around` it, answer prefix included, and the answer."""
    asked = around.before + COMMON_WORDS.task.format(context=_numbered(listed)) + around.after
    return f"{asked}{COMMON_WORDS.prefix} {_numbered(answer)}\n"
