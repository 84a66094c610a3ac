"""Tasks that hide needles in a haystack, read it once and ask for each of them."""

import random
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import Document, decode
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.ruler.haystack import endless
from ropewalk.evaluate.ruler.metrics import string_match_part
from ropewalk.evaluate.ruler.words import sentences
from ropewalk.evaluate.tasks.base import Piece, Question, Report, Sample, TextTask
from ropewalk.evaluate.tasks.haystack import Frame, HaystackDocument, build, compose
from ropewalk.evaluate.tasks.perplexity import positions
from ropewalk.evaluate.tasks.reply import Reply, reply


class HiddenTask(TextTask):
    """Needles in a haystack. What is hidden and at which depths comes from the seed alone, not from the length.

    One prefill serves all questions, and that is exact: in a causal model the document's keys and values do not depend
    on what follows them, so a question that continues the cached document, cut back to that document before the next
    one is asked, has the answer that it would have had alone.

    The details hold, in the order of the questions and of their references: `depths`, those asked for; `answers`, each
    with the depth and the distance that it got (shares of the document's tokens before the needle, tokens from it to
    the question; None where a control cut the needle out), what was generated, and the log-probability of the true
    answer, which separates methods long before hits do; and the loss of the text by position, needles not counted.
    """

    @abstractmethod
    def frame(self, rng: random.Random, seed: int) -> Frame:
        """What is hidden and asked, from the generator of the document's seed."""

    @abstractmethod
    def found(self, question: Question, said: str) -> tuple[bool, ...]:
        """Which of the references were given."""

    @abstractmethod
    def enough(self, question: Question, said: str) -> bool:
        """Whether the score is decided, whatever would be said next."""

    def lines(self, rng: random.Random, corpus: str) -> tuple[int, Callable[[], Iterable[str]]]:
        """The text: by default the sentences of a corpus from a random paragraph on, and the paragraph's index."""
        texts = corpora.paragraphs(corpus)
        start = rng.randrange(len(texts))

        def running() -> Iterator[str]:
            for paragraph in endless(texts, start):
                yield from sentences(paragraph)

        return start, running

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> HaystackDocument:
        """See `Task.build` and `ropewalk.evaluate.tasks.haystack.build`."""
        rng = random.Random(f"{self.protocol} {seed}")
        frame = self.frame(rng, seed)
        start, lines = self.lines(rng, corpus)
        return build(tokenizer, length, frame, lines, name=self.name, seed=seed, corpus=corpus, start=start)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document once and ask all its questions."""
        asked = self.questions(document)
        read = prefill(model, document.ids, progress=lambda done: report("read", done))
        replies = []
        for question in asked:
            replies.append(reply(model, tokenizer, read.cache, question, enough=partial(self.enough, question)))
            report("ask", len(replies) / len(asked))
        scores = tuple(self.grade(document, index, said.text) for index, said in enumerate(replies))
        details = {**self._answers(document, replies), **positions(read.losses, document)}
        return Sample(scores, len(scores), read.seconds, details)

    def _answers(self, document: Document, replies: Sequence[Reply]) -> dict[str, Any]:
        needles = {needle.value: needle for needle in _ours(document).frame.needles if needle.position is not None}
        depths, answers = [], []
        for question, said in zip(self.questions(document), replies, strict=True):
            got = zip(question.references, self.found(question, said.text), said.log_probabilities, strict=True)
            for value, found, log_probability in got:
                needle = needles.get(value)
                position = needle.position if needle else None
                depths.append(needle.depth if needle else None)
                answers.append(
                    {
                        "retrieved": found,
                        "log_probability": log_probability,
                        "depth": None if position is None else position / len(document.ids),
                        "distance": None if position is None else len(document.ids) - position,
                        "prefix": question.search,
                        "answer": value,
                        "text": said.text,
                    }
                )
        each = [value for said in replies for value in said.log_probabilities]
        return {"log_probability": sum(each) / len(each), "depths": depths, "answers": answers}

    def questions(self, document: Document) -> tuple[Question, ...]:
        return _ours(document).frame.questions

    def text(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> str:
        return decode(tokenizer, document.ids) if document.shortened else _ours(document).text

    def pieces(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> tuple[Piece, ...]:
        """The lines; the last one has no separator after it."""
        ours = _ours(document)
        golds = {
            needle.sentence: frozenset(
                index for index, question in enumerate(ours.frame.questions) if needle.value in question.references
            )
            for needle in ours.frame.needles
        }
        last = len(ours.lines) - 1
        return tuple(
            Piece(line if index == last else line + ours.frame.joint, golds.get(line, frozenset()))
            for index, line in enumerate(ours.lines)
        )

    def shorten(
        self, tokenizer: PreTrainedTokenizerBase, document: Document, question: int, kept: Sequence[int]
    ) -> HaystackDocument:
        ours = _ours(document)
        frame = replace(ours.frame, questions=(ours.frame.questions[question],))
        lines = [ours.lines[index] for index in kept]
        return compose(tokenizer, frame, lines, seed=ours.seed, corpus=ours.corpus, start=ours.start)


class FirstInteger(HiddenTask):
    """One value a question; it is retrieved when it is the first integer of what is generated.

    Digits 0 to 9 count, and nothing else joins them: "12,345" begins with the integer 12.
    """

    def found(self, question: Question, said: str) -> tuple[bool, ...]:
        number = re.search("[0-9]+", said)
        return (number is not None and number.group() == question.references[0],)

    def enough(self, question: Question, said: str) -> bool:
        return re.search("[0-9][^0-9]", said) is not None

    def grade(self, document: Document, question: int, said: str) -> float:
        return float(self.found(self.questions(document)[question], said)[0])


class AnyOrder(HiddenTask):
    """Several values a question; each is retrieved when it stands anywhere in what is generated, as RULER has it."""

    def found(self, question: Question, said: str) -> tuple[bool, ...]:
        return tuple(string_match_part(said, [value]) == 1.0 for value in question.references)

    def enough(self, question: Question, said: str) -> bool:
        return all(self.found(question, said))


def _ours(document: Document) -> HaystackDocument:
    assert isinstance(document, HaystackDocument), "needles are asked about the documents that they were hidden in"
    return document
