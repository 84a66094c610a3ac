"""What a RULER task is: it draws a prompt of a given number of units, in either mode."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase

from ropewalk.evaluate.document import encode
from ropewalk.evaluate.ruler.metrics import Metric
from ropewalk.evaluate.ruler.questions import Questions
from ropewalk.evaluate.ruler.template import NOTHING, Frame
from ropewalk.evaluate.ruler.wording import Wording
from ropewalk.evaluate.ruler.words import Words, load_words, running_sentences, running_text


@dataclass(frozen=True)
class Setting:
    """What every sample of one task at one length has in common; the texts are read once, when first asked for.

    Attributes:
        tokenizer, length, seed: of the samples; `length` in tokens, with the answer.
        corpus: running text for essays, see `ropewalk.evaluate.corpus`.
        questions: from the user's file, for qa_1 and qa_2.
        frame: what stands around the task.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    seed: int
    corpus: str
    questions: Questions | None = None
    frame: Frame = NOTHING

    @cached_property
    def words(self) -> Words:
        return load_words()

    @cached_property
    def pool(self) -> list[str]:
        return self.words.pool()

    @cached_property
    def essay(self) -> str:
        return running_text(self.corpus)

    @cached_property
    def essay_words(self) -> list[str]:
        return self.essay.split(" ")

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        return running_sentences(self.corpus)

    def count(self, text: str) -> int:
        """Tokens of a text, no special tokens added."""
        return len(encode(self.tokenizer, text))

    def fixed(self) -> random.Random:
        """The generator of a permutation that is the same in every sample: compat mode only."""
        return random.Random(self.seed)


@dataclass(frozen=True)
class Body:
    """The inside of a prompt.

    Attributes:
        context: the long part.
        references: what the answer must hold.
        fields: of the wording, but for the context.
        golds: the statements of `context` that carry the answer; none where all of it does.
        shot: a worked example before the task, inside its turn.
        ahead: one before that turn, in a turn of its own.
    """

    context: str
    references: tuple[str, ...]
    fields: dict[str, str] = field(default_factory=dict)
    golds: tuple[str, ...] = ()
    shot: str = ""
    ahead: str = ""


class Unit(NamedTuple):
    """The smallest piece by which a hardened prompt grows.

    Attributes:
        text: the piece.
        cost: the text whose tokens are counted for it, with its separator.
        opens: a new line of the context begins with it.
    """

    text: str
    cost: str
    opens: bool = False


class Draft(Protocol):
    """One hardened sample that has everything but its size."""

    @property
    def least(self) -> int:
        """The fewest units of a sample that can be answered, 0 or more."""

    def units(self) -> Iterator[Unit]:
        """Its units in order, more than `Setting.length` tokens of them, the same at every call."""

    def body(self, units: Sequence[Unit]) -> Body:
        """The sample that has just these first units."""


class Family(ABC):
    """A task of RULER or one of ours; frozen dataclasses with its parameters.

    Attributes:
        probe: units of NVIDIA's first probe, by which it bounds its search; None: its step.
        slack: the search goes to this multiple of what the probe says.
        grows: its search grows by steps instead, as NVIDIA's does for frequent words.
        fewest: units that hold every answer in compat mode.
    """

    probe: ClassVar[int | None] = None
    slack: ClassVar[int] = 3
    grows: ClassVar[bool] = False
    fewest: ClassVar[int] = 1

    @property
    @abstractmethod
    def wording(self) -> Wording:
        """What is asked."""

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """How an answer is scored."""

    @property
    @abstractmethod
    def between(self) -> str:
        """Pattern of what separates two pieces of the context: sentences, lines, documents or words."""

    @abstractmethod
    def draft(self, setting: Setting, rng: random.Random, index: int) -> Draft:
        """Hardened mode: the sample, to be fitted."""

    @abstractmethod
    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        """Compat mode: a sample of `units` of NVIDIA's units; what is frozen there comes from `setting.fixed()`."""

    @abstractmethod
    def step(self, length: int) -> int:
        """NVIDIA's `incremental`: fewest units of its search, and how many it takes away when a sample is too long."""
