"""Evaluation while a run goes on: needles and the loss of held-out documents at several lengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ropewalk.errors import TrainingError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.unit import document_seed
from ropewalk.train.attached import Attached

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED = 999  # of needle documents; evaluations begin at 0, so that none is met there again


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured while a run goes on.

    Attributes:
        lengths: tokens.
        every: steps from one to the next; there is one after the last step, too.
        documents: held out, token ids each; the loss is the mean over the first tokens of those that are long enough.
        samples: documents of a length at most.
        needles: needle documents of a length; each asks for ten facts.
        tokenizer: of the model; for needles.
    """

    lengths: Sequence[int]
    every: int = 100
    documents: Sequence[np.ndarray] = ()
    samples: int = 4
    needles: int = 0
    tokenizer: "PreTrainedTokenizerBase | None" = None

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2 or self.every < 1 or self.samples < 1:
            raise TrainingError("evaluation takes lengths of two tokens or more, at least one step, and one document")
        if not self.documents and not self.needles:
            raise TrainingError("there is nothing to evaluate on; give held-out documents, or a number of needles")
        if self.needles and self.tokenizer is None:
            raise TrainingError("needles are texts, and this model came without a tokenizer; leave them out")
        longest = max((len(one) for one in self.documents), default=0)
        if self.documents and longest < max(self.lengths):
            raise TrainingError(
                f"no held-out document has {max(self.lengths)} tokens (the longest has {longest}); give longer ones, "
                "join them, or evaluate at shorter lengths"
            )

    def measure(self, attached: Attached) -> dict[str, float]:
        """loss@LENGTH, nats per token, and needle@LENGTH, the share of facts that were retrieved."""
        found: dict[str, float] = {}
        for length in self.lengths:
            with attached.at(length):
                if self.documents:
                    found[f"loss@{length}"] = self._loss(attached.model, length)
                if self.needles:
                    found[f"needle@{length}"] = self._retrieved(attached.model, length)
        return found

    def _loss(self, model: Any, length: int) -> float:
        fit = [one[:length] for one in self.documents if len(one) >= length][: self.samples]
        return float(np.mean([float(prefill(model, one.tolist()).losses.double().mean()) for one in fit]))

    def _retrieved(self, model: Any, length: int) -> float:
        task = TASKS.get("needle")
        assert self.tokenizer is not None
        scores: list[float] = []
        for index in range(self.needles):
            document = task.build(self.tokenizer, length, seed=document_seed(SEED, index), corpus=corpus.DEFAULT)
            scores += task.measure(model, self.tokenizer, document, report=_silent).scores
        return float(np.mean(scores))


def _silent(stage: str, done: float) -> None:
    pass


class Evaluate(TrainerCallback):
    """Measures after every so many steps, with every process of a run: sharded weights take all of them.

    Args:
        evaluation: what.
        attached: the model with its method.
        log: takes what was measured.
    """

    def __init__(self, evaluation: Evaluation, attached: Attached, log: Callable[[dict[str, float]], None]) -> None:
        self.evaluation = evaluation
        self.attached = attached
        self.log = log

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any) -> None:
        if state.global_step % self.evaluation.every and state.global_step != state.max_steps:
            return
        model = self.attached.model
        model.eval()
        try:
            with torch.no_grad():
                found = self.evaluation.measure(self.attached)
        finally:
            model.train()
        due = control.should_log  # of the loss; a line of ours would cancel it
        self.log(found)
        control.should_log = due
