"""Question answering over SQuAD or HotpotQA paragraphs, from the user's file."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.base import Body, Family, Setting, Unit
from ropewalk.evaluate.ruler.haystack import CHUNK_WORDS, endless, hide, joined, places
from ropewalk.evaluate.ruler.metrics import Metric, string_match_part
from ropewalk.evaluate.ruler.questions import Question, Questions
from ropewalk.evaluate.ruler.wording import DOCUMENTS, Wording


@dataclass(frozen=True)
class QuestionAnswering(Family):
    """A question, its own paragraphs, and others from the same file, numbered.

    Attributes:
        source, option: what the user supplies, from Python and on the command line, for the error message.
    """

    source: str
    option: str

    @property
    def wording(self) -> Wording:
        return DOCUMENTS

    @property
    def metric(self) -> Metric:
        return string_match_part

    @property
    def between(self) -> str:
        return r"\n\n(?=Document \d+:\n)"

    def step(self, length: int) -> int:
        return 10

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        """`units` paragraphs, the question's own first before a permutation that is the same in every sample."""
        data = self._data(setting)
        question = data.questions[self._checked(data, index)]
        everything = range(len(data.paragraphs))
        more = units - len(question.context)
        if units >= len(everything):
            chosen = (list(everything) * (units // len(everything) + 1))[:units]
        elif more > len(question.near):
            taken = {*question.context, *question.near}
            others = [place for place in everything if place not in taken]
            chosen = [*question.context, *question.near, *rng.sample(others, more - len(question.near))]
        else:
            chosen = [*question.context, *rng.sample(question.near, max(0, more))]
        setting.fixed().shuffle(chosen)
        return _body([data.paragraphs[place] for place in chosen], data, question)

    def draft(self, setting: Setting, rng: random.Random, index: int) -> "ParagraphsDraft":
        """Sample `index` is question `index` of a permutation by the seed; its paragraphs stand anywhere."""
        data = self._data(setting)
        order = random.Random(f"questions {setting.seed}").sample(range(len(data.questions)), len(data.questions))
        question = data.questions[order[self._checked(data, index)]]
        near = rng.sample(question.near, len(question.near))
        taken = {*question.context, *near}
        others = [place for place in range(len(data.paragraphs)) if place not in taken]
        stream = [*near, *rng.sample(others, len(others))]
        if not stream:
            raise EvaluationError(f"all paragraphs of the file belong to {question.query!r}; give a file with more")
        return ParagraphsDraft(data, question, tuple(stream), places(rng, len(question.context)), rng.random())

    def _data(self, setting: Setting) -> Questions:
        if setting.questions is None:
            raise EvaluationError(
                f"this task's questions are not bundled; give the file that their authors publish with {self.option} "
                f"(from Python: questions={self.source})"
            )
        return setting.questions

    def _checked(self, data: Questions, index: int) -> int:
        if index >= len(data.questions):
            raise EvaluationError(f"no question {index} in a file of {len(data.questions)}; ask for fewer samples")
        return index


@dataclass(frozen=True)
class ParagraphsDraft:
    """Other paragraphs until the room is full, those of the same article first, the last one cut short.

    Past the end of the file the others begin again.
    """

    data: Questions
    question: Question
    others: tuple[int, ...]
    places: tuple[float, ...]
    seed: float
    least: int = 0

    def units(self) -> Iterator[Unit]:
        for paragraph in endless([self.data.paragraphs[place] for place in self.others], 0):
            words = paragraph.split(" ")
            for start in range(0, len(words), CHUNK_WORDS):
                text = " ".join(words[start : start + CHUNK_WORDS])
                yield Unit(text, _document(100, text) + "\n\n" if start == 0 else f" {text}", start == 0)

    def body(self, units: Sequence[Unit]) -> Body:
        others = joined(units)
        random.Random(self.seed).shuffle(others)
        own = [self.data.paragraphs[place] for place in self.question.context]
        return _body(hide(others, own, self.places), self.data, self.question)


def _document(number: int, text: str) -> str:
    return f"Document {number}:\n{text}"


def _body(paragraphs: Sequence[str], data: Questions, question: Question) -> Body:
    context = "\n\n".join(_document(number, text) for number, text in enumerate(paragraphs, start=1))
    golds = tuple(data.paragraphs[place] for place in question.golds)
    return Body(context, question.answers, {"query": question.query}, golds)
