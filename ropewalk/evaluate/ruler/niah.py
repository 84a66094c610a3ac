"""Needles in a haystack: eight tasks of RULER, from one number in noise to one UUID among thousands."""

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ropewalk.evaluate.ruler.base import Body, Family, Setting
from ropewalk.evaluate.ruler.haystack import CHUNK_WORDS, Haystack, endless, places
from ropewalk.evaluate.ruler.metrics import Metric, string_match_all
from ropewalk.evaluate.ruler.wording import NEEDLE, NEEDLE_SENTENCE, NEEDLES, NOISE, Wording
from ropewalk.evaluate.ruler.words import SENTENCE_END, Words, sentences

Kind = Literal["words", "numbers", "uuids"]
# Needles stand in essays at 40 depths, 0% to 100%, rounded (niah.py at c3f5e3b).
DEPTHS = tuple(round(100 * step / 39) for step in range(40))


@dataclass(frozen=True)
class Needles:
    """What is hidden and what is asked."""

    sentences: tuple[str, ...]
    queries: tuple[str, ...]
    answers: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Niah(Family):
    """`keys` needles of `values` values each, `queries` of them asked for, in a haystack.

    Attributes:
        haystack: running text ("essay"), five sentences over and over ("noise"), or other needles ("needle").
        key, value: what they are: adjective-noun pairs, seven-digit numbers, UUIDs.
    """

    haystack: Literal["noise", "essay", "needle"]
    key: Kind = "words"
    value: Kind = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    @property
    def wording(self) -> Wording:
        return NEEDLE if self.queries * self.values == 1 else NEEDLES

    @property
    def metric(self) -> Metric:
        return string_match_all

    @property
    def between(self) -> str:
        return SENTENCE_END if self.haystack == "essay" else r"\n"

    def step(self, length: int) -> int:
        if self.haystack == "essay":
            return 500
        return 5 if length < 4096 else 25

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        needles = self._draw(setting.words, rng, set())
        hidden = list(needles.sentences)
        setting.fixed().shuffle(hidden)
        if self.haystack == "essay":
            words = setting.essay_words
            text = sentences(" ".join((words * (units // len(words) + 1))[:units]))
            # Rounded and joined as NVIDIA does it: a needle with no sentence before it follows a space of its own.
            spots = sorted(int(len(text) * (depth / 100)) for depth in rng.sample(DEPTHS, len(hidden)))
            first, *rest = [" ".join(text[a:b]) for a, b in itertools.pairwise([0, *spots, len(text)])]
            context = first + "".join(f" {sentence} {part}" for sentence, part in zip(hidden, rest, strict=True))
        else:
            lines = [" ".join(NOISE)] * units
            if self.haystack == "needle":
                lines = [self._sentence(self._key(setting.words, rng), _value(self.value, rng)) for _ in range(units)]
            for spot, sentence in zip(sorted(rng.sample(range(units), len(hidden)), reverse=True), hidden, strict=True):
                lines.insert(spot, sentence)
            context = "\n".join(lines)
        return self._body(context, needles)

    def draft(self, setting: Setting, rng: random.Random, index: int) -> Haystack:
        """Essays begin at a random sentence; keys and values of one prompt all differ; needles stand anywhere.

        A line of needles grows word by word: a UUID alone can be nearly 1% of 4096 tokens.
        """
        taken: set[str] = set()
        needles = self._draw(setting.words, rng, taken)
        seed, start = rng.random(), rng.random()

        def lines() -> Iterator[str]:
            if self.haystack == "essay":
                return endless(setting.sentences, int(start * len(setting.sentences)))
            if self.haystack == "noise":
                return endless((" ".join(NOISE),), 0)
            return self._others(setting.words, random.Random(seed), set(taken))

        return Haystack(
            lines,
            " " if self.haystack == "essay" else "\n",
            needles.sentences,
            places(rng, len(needles.sentences)),
            lambda context: self._body(context, needles),
            words=1 if self.haystack == "needle" else CHUNK_WORDS,
        )

    def _others(self, words: Words, rng: random.Random, taken: set[str]) -> Iterator[str]:
        while True:
            yield self._sentence(
                _new(lambda: self._key(words, rng), taken), _new(lambda: _value(self.value, rng), taken)
            )

    def _draw(self, words: Words, rng: random.Random, taken: set[str]) -> Needles:
        table = {
            _new(lambda: self._key(words, rng), taken): [
                _new(lambda: _value(self.value, rng), taken) for _ in range(self.values)
            ]
            for _ in range(max(self.keys, self.queries))
        }
        queries = rng.sample(list(table), self.queries)
        return Needles(
            tuple(self._sentence(key, value) for key, values in table.items() for value in values),
            tuple(queries),
            tuple(value for key in queries for value in table[key]),
            tuple(self._sentence(key, value) for key in queries for value in table[key]),
        )

    def _body(self, context: str, needles: Needles) -> Body:
        *first, last = needles.queries
        query = f"{', '.join(first)}, and {last}" if first else last
        kind = self.value if self.queries * self.values > 1 else self.value.removesuffix("s")
        return Body(context, needles.answers, {"type": kind, "query": query}, needles.asked)

    def _sentence(self, key: str, value: str) -> str:
        return NEEDLE_SENTENCE.format(type=self.value, key=key, value=value)

    def _key(self, words: Words, rng: random.Random) -> str:
        return (
            f"{rng.choice(words.adjectives)}-{rng.choice(words.nouns)}"
            if self.key == "words"
            else _value(self.key, rng)
        )


def _value(kind: Kind, rng: random.Random) -> str:
    if kind == "numbers":
        return str(rng.randint(10**6, 10**7 - 1))
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _new(draw: Callable[[], str], taken: set[str]) -> str:
    """A draw that is not taken yet; it is afterwards."""
    while (drawn := draw()) in taken:
        pass
    taken.add(drawn)
    return drawn
