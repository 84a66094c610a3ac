"""What a search measured: rows by method and document, and what a candidate costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ropewalk.calibrate.rule import Samples
from ropewalk.calibrate.trials import Executor, trial
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.row import Row


@dataclass(frozen=True)
class Objective:
    """What a search minimises, nats: needle x (- log-probability of the answers) + text x (loss of the last tokens).

    Attributes:
        needle: weight of the hidden facts' answers, each given its question; mean over the facts of a document.
        text: weight of the loss per token of the last 1,024 tokens (all that a task tells), facts left out.
    """

    needle: float
    text: float

    def __call__(self, row: Row) -> float:
        told = {name: row.details.get(name) for name in ("log_probability", "loss_last")}
        missing = [
            name for name, weight in zip(told, (self.needle, self.text), strict=True) if weight and told[name] is None
        ]
        if missing:
            raise EvaluationError(f"task {row.key.task!r} does not tell {' and '.join(missing)}; take another --task")
        return -self.needle * (told["log_probability"] or 0.0) + self.text * (told["loss_last"] or 0.0)

    def to_json(self) -> dict[str, float]:
        return asdict(self)


# By name: that of LongRoPE (perplexity), that of LongRoPE2 (of the needles' answers alone), and ours, both.
OBJECTIVES = {"text": Objective(0.0, 1.0), "needle": Objective(1.0, 0.0), "both": Objective(1.0, 1.0)}


class Measured:
    """Rows by method and document; what an executor's store holds is not measured again.

    Attributes:
        rows: by method, as text, and document.
    """

    def __init__(self, executor: Executor, *, task: str, target_length: int, seed: int) -> None:
        self.rows: dict[tuple[str, int], Row] = {}
        self._executor = executor
        self._task = task
        self._target = target_length
        self._seed = seed

    def read(self, wanted: Sequence[tuple[str, int]]) -> list[Row]:
        """The rows of methods and documents, in that order; those that are not known yet are measured together."""
        missing = [each for each in dict.fromkeys(wanted) if each not in self.rows]
        if missing:
            units = [trial(self._task, name, self._target, seed=self._seed, document=at) for name, at in missing]
            self.rows |= dict(zip(missing, self._executor(units), strict=True))
        return [self.rows[each] for each in wanted]

    def costs(self, methods: Sequence[str], documents: Sequence[int], objective: Objective) -> list[float]:
        """The mean objective of each method over the documents; all methods read a document before the next."""
        self.read([(method, at) for at in documents for method in methods])
        return [fmean(objective(self.rows[method, at]) for at in documents) for method in methods]

    def samples(self, method: str, documents: Sequence[int]) -> tuple[Samples, Samples]:
        """Log-probability of every answer, and the loss of the last tokens, of each document."""
        rows = dict(zip(documents, self.read([(method, at) for at in documents]), strict=True))
        answers = {at: [each["log_probability"] for each in row.details["answers"]] for at, row in rows.items()}
        return answers, {at: [row.details["loss_last"]] for at, row in rows.items()}

    def trials(self) -> list[dict[str, Any]]:
        """Every row in few words, for a profile; in the order of documents and methods."""
        wanted = ("log_probability", "loss_last")
        return [
            {
                "method": method,
                "document": document,
                "hits": sum(row.scores),
                "n": row.n,
                **{name: row.details.get(name) for name in wanted},
                "seconds": row.seconds,
            }
            for (method, document), row in sorted(self.rows.items(), key=lambda item: (item[0][1], item[0][0]))
        ]
