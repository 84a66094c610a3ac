"""Perplexity: the loss of running text, read once from its start, every token scored with all that precedes it."""

import random
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document, start_tokens
from ropewalk.evaluate.losses import bits_per_byte, loss_by_position, mean_loss, perplexity
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task
from ropewalk.evaluate.tasks.running import RunningText, running_text

# Tokens whose mean loss is one score: with a single document the interval is a bootstrap over these.
BLOCK = 256
STRETCH = 1024


class Perplexity(Task):
    """Nats per token; no sliding window, no stride: position t is predicted from all t tokens before it.

    One score per BLOCK tokens. The details hold the loss per STRETCH tokens of position and that of the last STRETCH,
    the perplexity (exp of the loss), and bits per byte. Other protocols that go by the same name give other numbers:
    see `ropewalk.evaluate.tasks.sliding`.
    """

    name = "perplexity"
    protocol = "perplexity-one-pass/1"
    metric = "nats_per_token"

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> RunningText:
        """Exactly `length` tokens of consecutive paragraphs; see `Task.build`."""
        if length < BLOCK:
            raise EvaluationError(
                f"a perplexity document of {length} tokens is too short; ask for {BLOCK} tokens or more"
            )
        rng = random.Random(f"{self.protocol} {seed}")
        return running_text(tokenizer, length, begin=start_tokens(tokenizer), rng=rng, seed=seed, corpus=corpus)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read the document; see `Task.measure`."""
        assert isinstance(document, RunningText), "perplexity scores the documents that it builds"
        read = prefill(model, document.ids, progress=lambda done: report("read", done))
        blocks = loss_by_position(read.losses, document.scored, width=BLOCK)
        n = sum(document.scored[1:])
        return Sample(tuple(loss for *_, loss in blocks), n, read.seconds, text_losses(read.losses, document))


def text_losses(losses: torch.Tensor, document: RunningText) -> dict[str, Any]:
    """What results keep of a text that was read once: `positions`, "perplexity" and "bits_per_byte".

    Bits per byte: of the scored tokens and their text; None where the tokenizer does not say what a token stands for.
    """
    found = positions(losses, document)
    counted = torch.tensor(document.scored[1:], dtype=torch.bool)
    sizes = document.sizes()
    bits = None
    if sizes is not None:
        nats, size = losses[counted].double().sum().item(), int(torch.tensor(sizes[1:])[counted].sum())
        bits = bits_per_byte(nats, size)
    return found | {"perplexity": perplexity(found["loss"]), "bits_per_byte": bits}


def positions(losses: torch.Tensor, document: Document) -> dict[str, Any]:
    """The loss by position of a document, as results keep it: {"loss", "loss_last", "loss_by_position"}."""
    return {
        "loss": mean_loss(losses, document.scored),
        "loss_last": mean_loss(losses, document.scored, len(document.ids) - STRETCH),
        "loss_by_position": loss_by_position(losses, document.scored, width=STRETCH),
    }


TASKS.register("perplexity")(Perplexity())
