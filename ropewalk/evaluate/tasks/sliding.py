"""Perplexity by sliding windows: three protocols that papers of this field publish under one name.

They differ in which tokens they score and in how they average, and by more than the methods that they are used to
compare: read numbers of two protocols side by side and you compare protocols. The id of each says what it does.

| task | windows | tokens scored | average | as in |
|---|---|---|---|---|
| `perplexity-sliding` | W tokens, stride 256 | new ones (first window: all) | over tokens | PoSE, src/eval_ppl.py |
| `perplexity-yarn` | W tokens, stride 256 | new ones (first window: all) | over windows | YaRN, eval/perplexity.py |
| `perplexity-chunkllama` | W tokens, stride 256 | all, in every window | over windows | ChunkLlama, ppl/test_ppl.py |

By YaRN's average the first window's W tokens weigh as much as the 256 new ones of any other window. ChunkLlama scores
a token in as many windows as hold it, and half of what it scores has less than half a window before it.
"""

import random
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document, start_tokens
from ropewalk.evaluate.losses import bits_per_byte, block_losses, perplexity
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task
from ropewalk.evaluate.tasks.perplexity import STRETCH
from ropewalk.evaluate.tasks.running import RunningText, running_text

Scored = Literal["new", "all"]
Average = Literal["tokens", "windows"]
Start = Literal["added", "bos", "none"]

STRIDE = 256  # of all three sources
# The sources slide to the end of whole books (YaRN: documents of 131072 tokens or more): 16 strides, 4096 tokens past
# the first window, are what 17 readings of one window buy.
STRIDES = 16


class Sliding(Task):
    """Nats per token of a document that is longer than the window, in windows that are read one by one from nothing.

    The length asked for is the window W; the document has `strides` x `stride` tokens more, so that windows end exactly
    at its end. Every window is a text of its own whose positions start at 0: nothing is kept from the one before.

    Beside the score the details hold "loss" (mean over all scored tokens, each as often as it was scored),
    "loss_by_window" (from which the other average follows), the loss by position in the window, "perplexity" (exp of
    the score, as the sources print it) and bits per byte of the scored tokens.

    Other than the sources, which score data sets: documents come from a corpus here, a few strides of each, and windows
    fit them (theirs end with a window of fewer new tokens; ChunkLlama leaves its last windows out, and raises 2.71828
    to its mean). A start token stands before every window of the first two protocols, in the place of a text token.

    Args:
        name: that it is registered under: `TASKS.register(name)(Sliding(name, stride=512))` adds one of your own.
        stride: tokens from one window to the next, below W.
        strides: windows after the first.
        scored: "new": those that no earlier window held; "all": every token of every window that has one before it.
        average: over "tokens", or over the means of "windows".
        start: what stands before each window: what the tokenizer "added" to a text, its "bos" token whether or not it
            adds it (YaRN: where it has one), or "none".
    """

    metric = "nats_per_token"

    def __init__(
        self,
        name: str,
        *,
        stride: int = STRIDE,
        strides: int = STRIDES,
        scored: Scored = "new",
        average: Average = "tokens",
        start: Start = "added",
    ) -> None:
        if stride < 1 or strides < 0:
            raise EvaluationError(f"{strides} strides of {stride} tokens; give a stride of 1 or more, 0 or more times")
        self.name = name
        self.stride = stride
        self.strides = strides
        self.readings = strides + 1
        self.scored = scored
        self.average = average
        self.start = start
        what = f"last{stride}" if scored == "new" else f"all-every{stride}"
        weight = "token-weighted" if average == "tokens" else "window-weighted"
        begin = {"added": "BOS-if-added", "bos": "BOS-if-any", "none": "no-BOS"}[start]
        self.protocol = f"ppl[{what},{weight},W=length,{strides}-strides,{begin}]/1"

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> RunningText:
        """Exactly `length` + `strides` x `stride` tokens; `length` is the window. All protocols begin at the same text.

        Raises:
            EvaluationError: a window that is not longer than the stride, or a corpus that is shorter than the document.
        """
        if length <= self.stride:
            raise EvaluationError(
                f"a window of {length} tokens is too short for a stride of {self.stride}; "
                f"ask for {self.stride + 1} tokens or more"
            )
        begin: list[int] = []
        if self.start == "added":
            begin = start_tokens(tokenizer)
        elif self.start == "bos" and tokenizer.bos_token_id is not None:
            begin = [tokenizer.bos_token_id]
        total = length + self.strides * self.stride
        rng = random.Random(f"perplexity-sliding {seed}")
        return running_text(tokenizer, total, begin=begin, rng=rng, seed=seed, corpus=corpus)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Read every window; scores are one per window, or one per `stride` scored tokens; see `Task.measure`.

        Raises:
            EvaluationError: a document that a control shortened.
        """
        assert isinstance(document, RunningText), f"{self.name} scores the documents that it builds"
        if document.shortened:
            raise EvaluationError(f"{self.name} has no windows in a shortened document; give it no controls")
        begin = document.ids[: document.scored.index(True)]
        window = len(document.ids) - self.strides * self.stride
        count = self.strides + 1
        losses: list[Tensor] = []
        seconds = 0.0
        for index in range(count):

            def progress(done: float, index: int = index) -> None:
                report("read", (index + done) / count)

            last = window + index * self.stride
            ids = (*begin, *document.ids[last - window + len(begin) : last])
            keep = window - 1 if index == 0 or self.scored == "all" else self.stride
            read = prefill(model, ids, keep=keep, progress=progress)
            losses.append(read.losses.double())
            seconds += read.seconds
        means = [one.mean().item() for one in losses]
        every = torch.cat(losses)
        scores = tuple(means) if self.average == "windows" else block_losses(every, width=self.stride)
        details = {
            "window": window,
            "stride": self.stride,
            "windows": count,
            "start_token": len(begin) > 0,
            "loss": every.mean().item(),
            "loss_by_window": means,
            **window_positions(losses, window),
            "perplexity": perplexity(sum(scores) / len(scores)),
            "bits_per_byte": self._bits_per_byte(document, losses, window),
        }
        return Sample(scores, len(every), seconds, details)

    def _bits_per_byte(self, document: RunningText, losses: list[Tensor], window: int) -> float | None:
        """A token that was scored twice counts twice, and so does its text; None where that text is not known."""
        sizes = document.sizes()
        if sizes is None:
            return None
        before = [0, *accumulate(sizes)]
        lasts = [window + index * self.stride for index in range(len(losses))]
        size = sum(before[last] - before[last - len(one)] for last, one in zip(lasts, losses, strict=True))
        return bits_per_byte(sum(one.sum().item() for one in losses), size)


def window_positions(losses: list[Tensor], window: int) -> dict[str, float | list[tuple[int, int, float]]]:
    """The loss by position in the window, over all windows: {"loss_last", "loss_by_position"}.

    Args:
        losses: of the last tokens of each window; those of the first are of all its tokens but one.
        window: tokens.
    """
    totals, counts = torch.zeros(window, dtype=torch.float64), torch.zeros(window, dtype=torch.float64)
    for one in losses:
        totals[-len(one) :] += one
        counts[-len(one) :] += 1

    def mean(first: int, last: int) -> float:
        return (totals[first:last].sum() / counts[first:last].sum()).item()

    edges = range(0, window, STRETCH)
    stretches = [(first, min(first + STRETCH, window)) for first in edges]
    return {
        "loss_last": mean(max(0, window - STRETCH), window),
        "loss_by_position": [(first, last, mean(first, last)) for first, last in stretches],
    }


TASKS.register("perplexity-sliding")(Sliding("perplexity-sliding"))
TASKS.register("perplexity-yarn")(Sliding("perplexity-yarn", average="windows", start="bos"))
TASKS.register("perplexity-chunkllama")(Sliding("perplexity-chunkllama", scored="all", average="windows", start="none"))
