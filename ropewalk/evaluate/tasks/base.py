"""What a task is: it builds documents and scores a model on one of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
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
    """A task; `protocol` changes whenever numbers stop being comparable."""

    name: str
    protocol: str
    metric: str

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> Document:
        """A document that, with all that is generated after it, has at most `length` tokens.

        Raises:
            EvaluationError: `length` is too short.
        """

    @abstractmethod
    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Score `model` on a document that `build` made."""


TASKS: Registry[Task] = Registry("task", EvaluationError)
