"""RULER's tasks in the shape of `ropewalk.evaluate.tasks`: build a document, read it once, answer greedily, score."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.document import Document
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.ruler.questions import Questions
from ropewalk.evaluate.ruler.sample import Mode, RulerSample, protocol, sample
from ropewalk.evaluate.ruler.suite import FAMILIES
from ropewalk.evaluate.tasks.base import Report, Sample, Task

# `ropewalk.evaluate.run.document_seed` makes the seed of document i of a run from the run's seed s as s * 1000 + i.
DOCUMENTS = 1000


@dataclass(frozen=True)
class RulerDocument(Document):
    """A document with the sample that it comes from; none of its tokens counts for a loss."""

    sample: RulerSample


class Ruler(Task):
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
        self.questions = questions
        self.protocol = protocol(name, mode)
        self.metric = FAMILIES.get(name).metric.__name__

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> RulerDocument:
        """Sample `seed % 1000` of seed `seed // 1000`, so that compat mode freezes what it freezes over a whole run."""
        run_seed, index = divmod(seed, DOCUMENTS)
        made = sample(
            self.name,
            tokenizer,
            length,
            seed=run_seed,
            index=index,
            mode=self.mode,
            template=self.template,
            corpus=corpus,
            questions=self.questions,
        )
        return RulerDocument(made.ids, (False,) * len(made.ids), seed, corpus, 0, made)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document once, generate greedily until the model ends or its room is used up, and score that."""
        assert isinstance(document, RulerDocument), "a RULER task scores the documents that it builds"
        *read_ids, last = document.ids
        read = prefill(model, read_ids, progress=lambda done: report("read", done))
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


@torch.inference_mode()
def _generate(model: PreTrainedModel, cache: DynamicCache, last: int, room: int, *, report: Report) -> list[int]:
    """Greedy tokens after `last`, which the cache does not hold yet, at most `room`, without the end token."""
    ends = model.generation_config.eos_token_id
    stop = set(ends if isinstance(ends, list) else [ends])
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
