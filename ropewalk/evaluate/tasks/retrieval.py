"""Retrieval of the facts of a needle document."""

from dataclasses import asdict

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.document import Document
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import needle
from ropewalk.evaluate.tasks.answer import ask
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task
from ropewalk.evaluate.tasks.perplexity import positions


class Needle(Task):
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
        assert isinstance(document, needle.NeedleDocument), "needle scores the documents that it builds"
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


TASKS.register("needle")(Needle())
