"""Retrieval of the facts of a needle document."""

from collections.abc import Sequence
from dataclasses import asdict, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.document import Document, decode, start_tokens
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import needle
from ropewalk.evaluate.tasks.answer import ask, starts_with
from ropewalk.evaluate.tasks.base import TASKS, Piece, Question, Report, Sample, TextTask
from ropewalk.evaluate.tasks.perplexity import positions
from ropewalk.evaluate.tasks.stretches import stretches


class Needle(TextTask):
    """Fraction of the ten facts of a document whose answer is generated greedily after the fact's own words.

    The details hold every answer with its log-probability, which separates methods long before hits do, and the loss of
    the text by position.
    """

    name = "needle"
    protocol = needle.PROTOCOL
    metric = "retrieved"

    def build(
        self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str
    ) -> needle.NeedleDocument:
        """See `ropewalk.evaluate.tasks.needle.build`."""
        return needle.build(tokenizer, length, seed=seed, corpus=corpus)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document once and ask for every fact; the answer to the first fact is generated on to be shown."""
        document = _checked(document)
        read = prefill(model, document.ids, progress=lambda done: report("read", done))
        facts = len(document.facts)
        answers = ask(model, tokenizer, read.cache, document, show=0, progress=lambda done: report("ask", done / facts))
        details = {
            "log_probability": sum(answer.log_probability for answer in answers) / facts,
            "chosen": sum(answer.chosen for answer in answers) / facts,
            "answers": [asdict(answer) for answer in answers],
            **positions(read.losses, document),
        }
        return Sample(tuple(float(answer.retrieved) for answer in answers), facts, read.seconds, details)

    def questions(self, document: Document) -> tuple[Question, ...]:
        """One for each fact: its own words, without its answer."""
        return tuple(
            Question(fact.prefix, fact.prefix, (fact.answer,), needle.NEW_TOKENS) for fact in _checked(document).facts
        )

    def text(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> str:
        """See `TextTask.text`; the text of a shortened document is read back from its tokens."""
        if document.shortened:
            return decode(tokenizer, document.ids)
        return "".join(stretch.text for stretch in stretches(tokenizer, _checked(document)))

    def grade(self, document: Document, question: int, said: str) -> float:
        """1 if what was said starts with the answer, as a word of its own; else 0."""
        return float(starts_with(said, _checked(document).facts[question].answer))

    def pieces(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> tuple[Piece, ...]:
        """Its paragraphs and the sentences of its facts."""
        return tuple(
            Piece(stretch.text, frozenset() if stretch.fact is None else frozenset({stretch.fact}))
            for stretch in stretches(tokenizer, _checked(document))
        )

    def shorten(
        self, tokenizer: PreTrainedTokenizerBase, document: Document, question: int, kept: Sequence[int]
    ) -> needle.NeedleDocument:
        """See `TextTask.shorten`; every piece keeps the tokens that it has in the document."""
        whole = _checked(document)
        pieces = stretches(tokenizer, whole)
        ids = start_tokens(tokenizer)
        scored = [False] * len(ids)
        place: int | None = None
        for index in kept:
            if pieces[index].fact == question:
                place = len(ids)
            ids += pieces[index].ids
            scored += [pieces[index].fact is None] * len(pieces[index].ids)
        fact = needle.at(whole.facts[question], place)
        return replace(whole, ids=tuple(ids), scored=tuple(scored), facts=(fact,), shortened=True)


def _checked(document: Document) -> needle.NeedleDocument:
    assert isinstance(document, needle.NeedleDocument), "needle scores the documents that it builds"
    return document


TASKS.register("needle")(Needle())
