"""A context of lines, cut into chunks of a few words, with statements hidden between the lines."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ropewalk.evaluate.ruler.base import Body, Unit

# A chunk must stay below 1% of the shortest length that promises 99%, 41 tokens of 4096, even with one token a byte.
CHUNK_WORDS = 3


@dataclass(frozen=True)
class Haystack:
    """A draft: lines until the room is full, the last one cut short, and each statement at a random place.

    Attributes:
        lines: gives the lines from the first on, without end, the same at every call.
        joint: between lines.
        statements: to hide.
        places: of each statement, in [0, 1), see `hide`.
        finish: makes the body of the finished context.
        words: of a chunk.
    """

    lines: Callable[[], Iterable[str]]
    joint: str
    statements: tuple[str, ...]
    places: tuple[float, ...]
    finish: Callable[[str], Body]
    words: int = CHUNK_WORDS
    least: int = 1

    def units(self) -> Iterator[Unit]:
        return chunks(self.lines(), self.joint, words=self.words)

    def body(self, units: Sequence[Unit]) -> Body:
        return self.finish(self.joint.join(hide(joined(units), self.statements, self.places)))


def chunks(lines: Iterable[str], joint: str, *, words: int = CHUNK_WORDS) -> Iterator[Unit]:
    """Lines that stand with `joint` between them, cut into chunks of `words` words; `joined` makes lines of them."""
    for line in lines:
        parts = line.split(" ")
        for start in range(0, len(parts), words):
            text = " ".join(parts[start : start + words])
            yield Unit(text, text + joint if start == 0 else f" {text}", start == 0)


def joined(units: Sequence[Unit]) -> list[str]:
    """The lines that chunks make."""
    lines: list[list[str]] = []
    for unit in units:
        if unit.opens:
            lines.append([])
        lines[-1].append(unit.text)
    return [" ".join(line) for line in lines]


def hide(lines: Sequence[str], statements: Sequence[str], places: Sequence[float]) -> list[str]:
    """`lines` with each statement before line int(place * (lines + 1)); of equal ones the first comes first."""
    slots: dict[int, list[str]] = {}
    for statement, place in zip(statements, places, strict=True):
        slots.setdefault(int(place * (len(lines) + 1)), []).append(statement)
    mixed: list[str] = []
    for index in range(len(lines) + 1):
        mixed += slots.get(index, [])
        mixed += lines[index : index + 1]
    return mixed


def endless(lines: Sequence[str], start: int) -> Iterator[str]:
    """`lines` from `start` on, over and over."""
    while True:
        yield from lines[start:]
        start = 0


def places(rng: random.Random, count: int, *, ordered: bool = False) -> tuple[float, ...]:
    """Random places for `count` statements."""
    drawn = [rng.random() for _ in range(count)]
    return tuple(sorted(drawn) if ordered else drawn)
