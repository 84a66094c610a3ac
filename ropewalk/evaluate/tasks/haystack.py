"""Haystacks: lines of text with needles between them, cut to a number of tokens, and what is asked about them."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Self

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document, encode, start_tokens
from ropewalk.evaluate.ruler.base import Body, Unit
from ropewalk.evaluate.ruler.fit import TooShortError, fit
from ropewalk.evaluate.ruler.haystack import chunks, hide, joined
from ropewalk.evaluate.tasks.base import Question
from ropewalk.evaluate.tasks.reply import draft

# Of a few words each: a needle gets at least 30 words of text, or depths would say nothing.
CHUNKS_PER_NEEDLE = 10


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, or one that is hidden.

    Attributes:
        sentence: unlike every other line of the document.
        value: what is asked for; it stands in the sentence.
        depth: share of the text's characters (needles not counted) that is to stand before it, 0 to 1.
        position: index in the document of the sentence's first token; None until there is a document, and
            where a control took a part of it out.
    """

    sentence: str
    value: str
    depth: float
    position: int | None = None


@dataclass(frozen=True)
class Frame:
    """All of a prompt but the text that the needles are hidden in.

    Attributes:
        head: what stands before the lines, with its own separator.
        joint: between two lines.
        tail: after the lines, before the question.
        needles: in reading order.
        questions: asked one by one.
    """

    head: str
    joint: str
    tail: str
    needles: tuple[Needle, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class HaystackDocument(Document):
    """A document with needles; instructions and needles do not count for its loss.

    Attributes:
        frame: with the needles that the document holds.
        lines: of text, and the needles' sentences, each a line of its own.
    """

    frame: Frame
    lines: tuple[str, ...]

    def without(self, first: int, last: int) -> Self:
        """See `Document.without`; needles that lose a token are there no more, and `text` is that of the whole."""
        places = self.moved([needle.position for needle in self.frame.needles], first, last)
        needles = tuple(
            replace(needle, position=place) for needle, place in zip(self.frame.needles, places, strict=True)
        )
        return replace(super().without(first, last), frame=replace(self.frame, needles=needles))

    @property
    def text(self) -> str:
        """All that was tokenised, without the start token; not that of a shortened document."""
        return f"{self.frame.head}{self.frame.joint.join(self.lines)}{self.frame.tail}"


def build(
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    frame: Frame,
    lines: Callable[[], Iterable[str]],
    *,
    name: str,
    seed: int,
    corpus: str,
    start: int,
) -> HaystackDocument:
    """A document that, with its longest question and the answer to it, has at most `length` tokens, or a few less.

    The whole text is tokenised as one, so that it is the text that a server would read. Every needle stands between
    two lines, at the place nearest to its depth. The time is linear in the length (see `ropewalk.evaluate.ruler.fit`).

    Args:
        lines: gives the lines of the text, without end, the same at every call.
        name: of the task, for messages.
        seed, corpus, start: as the document records them.

    Raises:
        EvaluationError: `length` is too short, with the smallest length that this document can have, or the tokenizer
            does not write an answer behind its question.
    """
    drafts = [(question, draft(tokenizer, question)) for question in frame.questions]
    reserve = max(len(made.query) + max(len(made.answer), question.new_tokens) for question, made in drafts)
    begin = start_tokens(tokenizer)

    def count(body: Body) -> int:
        return len(begin) + len(encode(tokenizer, f"{frame.head}{body.context}{frame.tail}"))

    try:
        body = fit(_Draft(frame, lines), tokenizer, length - reserve, count)
    except TooShortError as error:
        raise EvaluationError(
            f"{name} does not fit {length} tokens; ask for {error.tokens + reserve} tokens or more"
        ) from None
    assert isinstance(body, _Body), "fit gives what the draft made"
    return compose(tokenizer, frame, body.lines, seed=seed, corpus=corpus, start=start)


def compose(
    tokenizer: PreTrainedTokenizerBase, frame: Frame, lines: Sequence[str], *, seed: int, corpus: str, start: int
) -> HaystackDocument:
    """The document of given lines; needles of `frame` that are not among them are left out of it."""
    begins = accumulate((len(line) + len(frame.joint) for line in lines), initial=len(frame.head))
    where = dict(zip(lines, begins, strict=False))
    held = [needle for needle in frame.needles if needle.sentence in where]
    text = f"{frame.head}{frame.joint.join(lines)}{frame.tail}"
    # First and last character of all that is no running text.
    spans = [(where[needle.sentence], where[needle.sentence] + len(needle.sentence) - 1) for needle in held]
    around = [(0, len(frame.head) - 1), (len(text) - len(frame.tail), len(text) - 1)]

    front = start_tokens(tokenizer)
    marks = [mark for span in spans + around for mark in span]
    at = dict(zip(marks, _token_indices(tokenizer, text, marks), strict=True))
    ids = [*front, *encode(tokenizer, text)]
    scored = [False] * len(front) + [True] * (len(ids) - len(front))
    for first, last in spans + around:
        if first <= last:
            place = slice(len(front) + at[first], min(len(front) + at[last] + 1, len(ids)))
            scored[place] = [False] * len(scored[place])
    needles = tuple(
        replace(needle, position=len(front) + at[first]) for needle, (first, _) in zip(held, spans, strict=True)
    )
    return HaystackDocument(
        tuple(ids), tuple(scored), seed, corpus, start, replace(frame, needles=needles), tuple(lines)
    )


def _token_indices(tokenizer: PreTrainedTokenizerBase, text: str, marks: Sequence[int]) -> list[int]:
    """Index of the token that holds each character, in the tokens of `text`."""
    if tokenizer.is_fast:
        spans = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)["offset_mapping"]
        ends = [end for _, end in spans]
        return [bisect_right(ends, mark) for mark in marks]
    # Tokenizers in Python do not say where their tokens stand: what comes before is counted, right to within a token.
    return [len(encode(tokenizer, text[:mark])) for mark in marks]


@dataclass(frozen=True)
class _Body(Body):
    """A body that still knows its lines."""

    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A document that has everything but its size."""

    frame: Frame
    lines: Callable[[], Iterable[str]]

    @property
    def least(self) -> int:
        return CHUNKS_PER_NEEDLE * len(self.frame.needles)

    def units(self) -> Iterator[Unit]:
        return chunks(self.lines(), self.frame.joint)

    def body(self, units: Sequence[Unit]) -> _Body:
        text = joined(units)
        ends = [0, *accumulate(map(len, text))]
        # In the middle of the slot that `hide` makes of a place.
        places = [(_nearest(ends, needle.depth * ends[-1]) + 0.5) / len(ends) for needle in self.frame.needles]
        mixed = tuple(hide(text, [needle.sentence for needle in self.frame.needles], places))
        return _Body(self.frame.joint.join(mixed), tuple(needle.value for needle in self.frame.needles), lines=mixed)


def _nearest(ends: Sequence[int], wanted: float) -> int:
    """Index of the ascending number that is nearest to `wanted`."""
    after = min(bisect_left(ends, wanted), len(ends) - 1)
    before = max(0, after - 1)
    return before if wanted - ends[before] < ends[after] - wanted else after
