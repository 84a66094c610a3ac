"""Controls: the stock model on a prompt cut down to its trained window, instead of a method on the whole prompt.

What a method gains must be more than what anyone gets for nothing: by leaving out the middle ("truncate-middle") or by
searching the prompt for the question's words first ("bm25"). "needle-only" shows what the model makes of the pieces
that answer the question, without anything to find them in: what it misses there is no failure of position.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bm25 import bm25, words
from ropewalk.evaluate.document import Document, encode
from ropewalk.evaluate.tasks.base import Piece, Question, Task, TextTask
from ropewalk.lengths import parse_length
from ropewalk.registry import Registry, unknown

# Of the trained window: what BM25 may keep, where it is not said.
SHARE = 8


@dataclass(frozen=True)
class Prompt:
    """A document that was cut down.

    Attributes:
        questions: indices of those that it asks, of the whole document's.
        kept: indices of the pieces that it has; None where tokens were cut and not pieces.
    """

    document: Document
    questions: tuple[int, ...]
    kept: tuple[int, ...] | None


@dataclass(frozen=True)
class Control(ABC):
    """A way to shorten prompts; `str` writes it as `parse` reads it."""

    name = ""

    def __str__(self) -> str:
        return self.name

    def at(self, window: int) -> "Control":
        """With every parameter filled in, for a model trained on `window` tokens."""
        return self

    def refusal(self, task: TextTask, document: Document) -> str | None:
        """Why this document has no prompt of this kind; None if it has."""
        return None

    @abstractmethod
    def prompts(
        self, task: TextTask, tokenizer: PreTrainedTokenizerBase, document: Document, window: int
    ) -> list[Prompt]:
        """The shortened prompts, which together ask every question once."""


CONTROLS: Registry[type[Control]] = Registry("control", EvaluationError)


@CONTROLS.register("truncate-middle")
@dataclass(frozen=True)
class TruncateMiddle(Control):
    """The first and the last half of what the window has room for, in tokens, as LongBench cuts (arXiv 2308.14508)."""

    name = "truncate-middle"

    def prompts(
        self, task: TextTask, tokenizer: PreTrainedTokenizerBase, document: Document, window: int
    ) -> list[Prompt]:
        questions = task.questions(document)
        room = window - max(_after(tokenizer, question) for question in questions)
        if room < 2:
            raise EvaluationError(
                f"a question of {task.name} and its answer take {window - room} tokens, and the model's window is "
                f"{window}: nothing of the text fits; leave {self} out"
            )
        cut = len(document.ids) - room
        short = document if cut <= 0 else document.without(room // 2, room // 2 + cut)
        return [Prompt(short, tuple(range(len(questions))), None)]


@CONTROLS.register("bm25")
@dataclass(frozen=True)
class Bm25(Control):
    """The pieces that answer a question best by BM25, in reading order, while they fit `tokens`.

    A piece that does not fit any more is passed over; of equals the first in the text is taken.

    Attributes:
        tokens: of the pieces together; None: an eighth of the trained window.
    """

    tokens: int | None = None
    name = "bm25"

    def __str__(self) -> str:
        return self.name if self.tokens is None else f"{self.name}:tokens={self.tokens}"

    def at(self, window: int) -> "Bm25":
        return self if self.tokens is not None else Bm25(max(1, window // SHARE))

    def refusal(self, task: TextTask, document: Document) -> str | None:
        if all(words(question.search) for question in task.questions(document)):
            return None
        return f"a question of {task.name} names nothing that could be searched for"

    def prompts(
        self, task: TextTask, tokenizer: PreTrainedTokenizerBase, document: Document, window: int
    ) -> list[Prompt]:
        assert self.tokens is not None, "`at` fills it in"
        pieces = task.pieces(tokenizer, document)
        sizes = [len(encode(tokenizer, piece.text)) for piece in pieces]
        if min(sizes) > self.tokens:
            raise EvaluationError(
                f"no piece of {task.name} fits {self}; the shortest has {min(sizes)} tokens: raise the number"
            )
        if sum(sizes) <= self.tokens:
            everything = tuple(range(len(task.questions(document))))
            return [Prompt(document, everything, tuple(range(len(pieces))))]
        ranks = bm25([question.search for question in task.questions(document)], [piece.text for piece in pieces])
        found = []
        for question, scores in enumerate(ranks):
            kept, room = [], self.tokens
            for index in np.argsort(-scores, kind="stable").tolist():
                if sizes[index] <= room:
                    kept.append(index)
                    room -= sizes[index]
            found.append(_shortened(task, tokenizer, document, question, sorted(kept)))
        return found


@CONTROLS.register("needle-only")
@dataclass(frozen=True)
class NeedleOnly(Control):
    """Only the pieces that answer the question."""

    name = "needle-only"

    def refusal(self, task: TextTask, document: Document) -> str | None:
        if task.spread(document):
            return f"the answer of {task.name} comes from its whole text, not from pieces of it"
        return None

    def prompts(
        self, task: TextTask, tokenizer: PreTrainedTokenizerBase, document: Document, window: int
    ) -> list[Prompt]:
        pieces = task.pieces(tokenizer, document)
        return [
            _shortened(task, tokenizer, document, question, golds(pieces, question))
            for question in range(len(task.questions(document)))
        ]


def parse(text: str) -> Control:
    """The control that a text names: "truncate-middle", "needle-only", "bm25" or "bm25:tokens=1024".

    Raises:
        EvaluationError: an unknown control, or a parameter that it does not have.
    """
    name, _, rest = text.strip().partition(":")
    control = CONTROLS.get(name)()
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if not isinstance(control, Bm25):
            raise EvaluationError(f"{name} takes no parameters, got {item!r}; write {name}")
        if key.strip() != "tokens":
            raise EvaluationError(f"{name}: {unknown('parameter', key.strip(), ['tokens'])}")
        if control.tokens is not None:
            raise EvaluationError(f"{name}: parameter 'tokens' is given twice")
        control = replace(control, tokens=parse_length(value, EvaluationError))
    return control


def resolve(control: str, window: int) -> str:
    """The control with every parameter filled in, as `Key.control` records it; errors of `parse`."""
    return str(parse(control).at(window))


def applies(task: Task, document: Document, control: str) -> str | None:
    """Why a control cannot shorten this document, or None if it can; errors of `parse`."""
    parsed = parse(control)
    if not isinstance(task, TextTask):
        return f"{task.name} asks no question that a shorter prompt could keep"
    return parsed.refusal(task, document)


def controlled(
    task: Task, tokenizer: PreTrainedTokenizerBase, document: Document, control: str, window: int
) -> list[Document]:
    """What a stock model reads under a control, for each question of the document in order.

    Questions that share a prompt share the document, which asks them all; other documents ask one question each.

    Args:
        window: tokens that the model was trained on.

    Raises:
        EvaluationError: the control is unknown or does not apply, or a shortened prompt does not fit `window`.
    """
    owners: dict[int, Document] = {}
    for prompt in shortened(task, tokenizer, document, control, window):
        owners |= dict.fromkeys(prompt.questions, prompt.document)
    return [owners[question] for question in sorted(owners)]


def shortened(
    task: Task, tokenizer: PreTrainedTokenizerBase, document: Document, control: str, window: int
) -> list[Prompt]:
    """The prompts behind `controlled`, each once; its arguments and errors."""
    if reason := applies(task, document, control):
        raise EvaluationError(f"{control} does not apply: {reason}; leave it out there")
    assert isinstance(task, TextTask)
    whole = parse(control).at(window)
    prompts = whole.prompts(task, tokenizer, document, window)
    asked = task.questions(document)
    for prompt in prompts:
        after = max(_after(tokenizer, asked[question]) for question in prompt.questions)
        if len(prompt.document.ids) + after > window:
            raise EvaluationError(
                f"{whole} leaves {len(prompt.document.ids)} tokens of {task.name}, and {after} more for question and "
                f"answer; the model's window is {window}: give a smaller number of tokens or leave the control out"
            )
    return prompts


def golds(pieces: Sequence[Piece], question: int) -> list[int]:
    """Indices of the pieces that help to answer a question."""
    return [index for index, piece in enumerate(pieces) if question in piece.golds]


def _after(tokenizer: PreTrainedTokenizerBase, question: Question) -> int:
    """Tokens that follow the document: the question's own and those of the answer."""
    return len(encode(tokenizer, question.text)) + question.new_tokens


def _shortened(
    task: TextTask, tokenizer: PreTrainedTokenizerBase, document: Document, question: int, kept: Sequence[int]
) -> Prompt:
    return Prompt(task.shorten(tokenizer, document, question, kept), (question,), tuple(kept))
