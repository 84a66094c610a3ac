"""What a task is: it builds documents and scores a model on one of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document
from ropewalk.registry import Registry

# Called with the stage ("read", "ask") and the fraction of it that is done.
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Sample:
    """One document's outcome.

    Attributes:
        scores: the task's metric, one value per sample of the document; their mean is the document's score.
        n: what was counted: facts asked, tokens scored.
        prefill_seconds: wall time of reading the document.
        details: what else was measured; plain JSON.
    """

    scores: tuple[float, ...]
    n: int
    prefill_seconds: float
    details: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A task; `protocol` changes whenever numbers stop being comparable.

    Attributes:
        readings: how often about `length` tokens are read for one document, for estimates.
        own_text: name and SHA-256 of the text that documents are made of where that is no corpus.
    """

    name: str
    protocol: str
    metric: str
    readings: int = 1
    own_text: tuple[str, str] | None = None

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> Document:
        """A document that, with all that is generated after it, has at most `length` tokens.

        Raises:
            EvaluationError: `length` is too short.
        """

    def prepare(  # noqa: B027  (most tasks need nothing)
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> None:
        """Do what `measure` needs once for a document whatever the method, so that no method's time and memory hold it.

        `measure` does it by itself where it was not called.
        """

    @abstractmethod
    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Score `model` on a document that `build` made."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a document's text that can be left out on its own: a sentence, a line, a paragraph.

    Attributes:
        text: as it stands in the document, with the separator that follows it.
        golds: indices of the questions that it helps to answer.
    """

    text: str
    golds: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Question:
    """One of the questions put to a document that was read; each is asked as if it were the only one.

    Attributes:
        text: what follows the document, up to where the model goes on; "" where the document ends with the question.
        search: the words that say what is sought, for retrieval.
        references: answers, as the task's metric takes them.
        new_tokens: most tokens that are generated.
    """

    text: str
    search: str
    references: tuple[str, ...]
    new_tokens: int


class TextTask(Task):
    """A task whose answers are text: an engine that gives only text can take it, and controls can shorten its prompts.

    The prompt of a question is `text(document)` followed by the question's own text.
    """

    @abstractmethod
    def questions(self, document: Document) -> tuple[Question, ...]:
        """What is asked, in the order of `Sample.scores`."""

    @abstractmethod
    def text(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> str:
        """The document as text, without the tokenizer's start token."""

    @abstractmethod
    def grade(self, document: Document, question: int, said: str) -> float:
        """The metric of what a model said to a question, 0 to 1."""

    @abstractmethod
    def pieces(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> tuple[Piece, ...]:
        """The part of the document that may be shortened, in order."""

    @abstractmethod
    def shorten(
        self, tokenizer: PreTrainedTokenizerBase, document: Document, question: int, kept: Sequence[int]
    ) -> Document:
        """The document with only those pieces (indices, ascending), asking only that question.

        What is not a piece (instructions, a worked example, the question) stays.
        """

    def spread(self, document: Document) -> bool:
        """Whether the answers come from the whole text, so that no pieces have golds."""
        return False


TASKS: Registry[Task] = Registry("task", EvaluationError)
