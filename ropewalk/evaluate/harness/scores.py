"""What the harness says of one document, as a score of ours."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.harness.model import Extent
from ropewalk.evaluate.result import Result

# Characters of a target or an answer that a row keeps.
SHORT = 200

# Metrics that the harness makes of sums over all documents: (log-likelihood, weight) of one document, or its
# log-likelihood alone. One document has the mean loss behind them.
_LOSSES = {
    "word_perplexity": ("nats_per_word", 1.0),
    "byte_perplexity": ("nats_per_byte", 1.0),
    "bits_per_byte": ("bits_per_byte", 1 / math.log(2)),
    "perplexity": ("nats", 1.0),
}


def score(task: str, metric: str, measured: dict[str, Any]) -> tuple[str, float]:
    """One document's score, with the name of what it is.

    Args:
        task: for messages.
        metric: the harness's name of it.
        measured: what the task's `process_results` gave for the document.

    Raises:
        EvaluationError: the task does not measure it, or not for single documents.
    """
    if metric not in measured:
        raise EvaluationError(f"{task} does not measure {metric!r}; it has {', '.join(measured)}")
    found = single(metric, measured[metric])
    if found is None:
        has = [name for name, value in measured.items() if single(name, value)]
        raise EvaluationError(
            f"{metric} of {task} is made of all documents at once, so that none has a score of its own; "
            f"choose another metric: {', '.join(has) or 'this task has none'}"
        )
    return found


def single(metric: str, value: Any) -> tuple[str, float] | None:
    """A metric's name and value for one document, or None where only all documents together have one."""
    name, unit = _LOSSES.get(metric, (metric, 0.0))
    if unit and isinstance(value, tuple) and len(value) == 2:
        return name, -unit * value[0] / value[1]
    if isinstance(value, Real):
        return name, -unit * float(value) if unit else float(value)
    return None


def details(
    target: Any, answers: Sequence[Any], measured: dict[str, dict[str, Any]], extents: Sequence[Extent]
) -> dict[str, Any]:
    """What a row keeps of a document besides its score; plain JSON.

    Args:
        target: the right answer, as the task writes it.
        answers: of the model, filtered, one per request.
        measured: by filter, then by metric.
        extents: of the requests.
    """
    every = {
        f"{name},{kind}": found[1]
        for kind, metrics in measured.items()
        for name, value in metrics.items()
        if (found := single(name, value)) is not None and math.isfinite(found[1])
    }
    return {
        "target": str(target)[:SHORT],
        "answers": [_plain(answer) for answer in answers],
        "metrics": every,
        "tokens": max(extent.tokens for extent in extents),
        "cut": max(extent.cut for extent in extents),
        "windows": max(extent.windows for extent in extents),
    }


def _plain(answer: Any) -> Any:
    """An answer as JSON: (log-likelihood in nats, whether greedy) of a choice; the log-likelihood of a text; a text."""
    if isinstance(answer, tuple):
        return [_plain(part) for part in answer]
    return answer if isinstance(answer, bool | float) and math.isfinite(answer) else str(answer)[:SHORT]


def shortened(result: Result) -> tuple[int, int]:
    """Documents of a result whose prompt lost its beginning, and those that were read in several windows."""
    return sum(one["cut"] > 0 for one in result.details), sum(one["windows"] > 1 for one in result.details)
