"""RULER's tasks in the shape of `ropewalk.evaluate.tasks`: build a document, read it once, answer greedily, score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.document import Document, decode
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.ruler.pieces import pieces, shorten
from ropewalk.evaluate.ruler.questions import Questions
from ropewalk.evaluate.ruler.sample import Generator, Mode, RulerSample, protocol
from ropewalk.evaluate.ruler.suite import FAMILIES
from ropewalk.evaluate.tasks.base import Piece, Question, Report, Sample, TextTask
from ropewalk.evaluate.tasks.reply import end_tokens

# `ropewalk.evaluate.unit.document_seed` makes the seed of document i of a run from the run's seed s as s * 1000 + i.
DOCUMENTS = 1000
# What the documents of a run share, the size that compat mode searches for among it, is found once. A sweep takes all
# documents of a length before the next one, and RULER has thirteen tasks.
_generator = lru_cache(maxsize=16)(Generator)


@dataclass(frozen=True)
class RulerDocument(Document):
    """A document with the sample that it comes from; none of its tokens counts for a loss."""

    sample: RulerSample


class Ruler(TextTask):
    """One of the RULER tasks, or of the synthetic ones.

    Args:
        name: of `ropewalk.evaluate.ruler.suite.FAMILIES`.
        mode, template, questions: see `ropewalk.evaluate.ruler.sample.Generator`.
    """

    def __init__(
        self, name: str, *, mode: Mode = "hardened", template: str = "base", questions: Questions | None = None
    ) -> None:
        self.name = name
        self.mode = mode
        self.template = template
        self._data = questions
        self.own_text = (questions.source, questions.sha256) if questions else None
        self.protocol = protocol(name, mode)
        self.metric = FAMILIES.get(name).metric.__name__

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> RulerDocument:
        """Sample `seed % 1000` of seed `seed // 1000`, so that compat mode freezes what it freezes over a whole run."""
        run_seed, index = divmod(seed, DOCUMENTS)
        generator = _generator(self.name, tokenizer, length, run_seed, self.mode, self.template, corpus, self._data)
        made = generator.sample(index)
        return RulerDocument(made.ids, (False,) * len(made.ids), seed, corpus, 0, made)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document once, generate greedily until the model ends or its room is used up, and score that."""
        document = _checked(document)
        *read_ids, last = document.ids
        read = prefill(model, read_ids, keep=0, progress=lambda done: report("read", done))
        asked = document.sample
        answer = _generate(model, read.cache, last, asked.tokens_to_generate, report=report)
        prediction = tokenizer.decode(answer, skip_special_tokens=True)
        details = {
            "prediction": prediction,
            "references": list(asked.references),
            "depths": list(asked.depths),
            "generated": len(answer),
            "tokens": len(document.ids),
            "mode": asked.mode,
            "template": asked.template,
            "index": asked.index,
        }
        return Sample((asked.score(prediction),), 1, read.seconds, details)

    def questions(self, document: Document) -> tuple[Question, ...]:
        """The only one, which stands at the end of the document, with the beginning of its answer."""
        asked = _checked(document).sample
        return (Question("", asked.search, asked.references, asked.tokens_to_generate),)

    def text(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> str:
        """See `TextTask.text`; the answer's prefix is part of it."""
        if document.shortened:
            return decode(tokenizer, document.ids)
        asked = _checked(document).sample
        return asked.prompt + asked.answer_prefix

    def grade(self, document: Document, question: int, said: str) -> float:
        """The task's metric, see `RulerSample.score`."""
        return _checked(document).sample.score(said)

    def pieces(self, tokenizer: PreTrainedTokenizerBase, document: Document) -> tuple[Piece, ...]:
        """See `ropewalk.evaluate.ruler.pieces`."""
        return pieces(_checked(document).sample)

    def shorten(
        self, tokenizer: PreTrainedTokenizerBase, document: Document, question: int, kept: Sequence[int]
    ) -> RulerDocument:
        """See `TextTask.shorten`."""
        whole = _checked(document)
        short = shorten(whole.sample, tokenizer, kept)
        return replace(whole, ids=short.ids, scored=(False,) * len(short.ids), sample=short)

    def spread(self, document: Document) -> bool:
        """True for common and for frequent words: they are counted over the whole list."""
        return not _checked(document).sample.golds


def _checked(document: Document) -> RulerDocument:
    assert isinstance(document, RulerDocument), "a RULER task scores the documents that it builds"
    return document


@torch.inference_mode()
def _generate(model: PreTrainedModel, cache: DynamicCache, last: int, room: int, *, report: Report) -> list[int]:
    """Greedy tokens after `last`, which the cache does not hold yet, at most `room`, without the end token."""
    stop = end_tokens(model)
    generated: list[int] = []
    token = last
    while len(generated) < room:
        fed: Tensor = torch.tensor([[token]], device=model.device)
        token = int(model(input_ids=fed, past_key_values=cache, use_cache=True).logits[0, -1].argmax())
        if token in stop:
            break
        generated.append(token)
        report("ask", len(generated) / room)
    return generated
