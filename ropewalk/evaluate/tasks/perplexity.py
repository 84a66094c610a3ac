"""Perplexity: the loss of running text, read once from its start, every token scored with all that precedes it."""

import random
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document, filler, start_tokens
from ropewalk.evaluate.losses import loss_by_position, mean_loss
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task

# Tokens whose mean loss is one score: with a single document the interval is a bootstrap over these.
BLOCK = 256
STRETCH = 1024


class Perplexity(Task):
    """Nats per token; no sliding window, no stride: position t is predicted from all t tokens before it.

    One score per BLOCK tokens. The details hold the loss per STRETCH tokens of position and that of the last STRETCH.
    """

    name = "perplexity"
    protocol = "perplexity-one-pass/1"
    metric = "nats_per_token"

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> Document:
        """Exactly `length` tokens of consecutive paragraphs; see `Task.build`."""
        if length < BLOCK:
            raise EvaluationError(
                f"a perplexity document of {length} tokens is too short; ask for {BLOCK} tokens or more"
            )
        begin = start_tokens(tokenizer)
        rng = random.Random(f"{self.protocol} {seed}")
        start, pieces = filler(tokenizer, length - len(begin), rng=rng, corpus=corpus)
        ids = begin + [token for piece in pieces for token in piece]
        return Document(tuple(ids), (False,) * len(begin) + (True,) * (length - len(begin)), seed, corpus, start)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document; see `Task.measure`."""
        read = prefill(model, document.ids, progress=lambda done: report("read", done))
        blocks = loss_by_position(read.losses, document.scored, width=BLOCK)
        n = sum(document.scored[1:])
        return Sample(tuple(loss for *_, loss in blocks), n, read.seconds, positions(read.losses, document))


def positions(losses: torch.Tensor, document: Document) -> dict[str, Any]:
    """The loss by position of a document, as results keep it: {"loss", "loss_last", "loss_by_position"}."""
    return {
        "loss": mean_loss(losses, document.scored),
        "loss_last": mean_loss(losses, document.scored, len(document.ids) - STRETCH),
        "loss_by_position": loss_by_position(losses, document.scored, width=STRETCH),
    }


TASKS.register("perplexity")(Perplexity())
