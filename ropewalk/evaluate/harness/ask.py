"""Ask a model the documents of a task, and score what it answers as the harness does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval.api.instance import Instance

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.harness.model import ExtendedLM, Extent
from ropewalk.evaluate.harness.scores import details, score
from ropewalk.evaluate.harness.tasks import Item, Prepared


@dataclass(frozen=True)
class Outcome:
    """A document's score; fields as in `ropewalk.evaluate.row.Row`."""

    metric: str
    score: float
    n: int
    reached: int
    details: dict[str, Any]


def ask(lm: ExtendedLM, prepared: Prepared, batch: Sequence[Item]) -> list[Outcome]:
    """Ask some documents together.

    Raises:
        EvaluationError: see `score`; a filter that the task does not have; no room for an answer.
    """
    # The task's own requests stay as they are, for the next method.
    fresh = [[replace(one, resps=[], filtered_resps={}) for one in item.requests] for item in batch]
    extents = _answer(lm, [request for requests in fresh for request in requests])
    return [
        _outcome(prepared, item, requests, [extents[id(request)] for request in requests], lm.max_length)
        for item, requests in zip(batch, fresh, strict=True)
    ]


def _answer(lm: ExtendedLM, requests: Sequence[Instance]) -> dict[int, Extent]:
    """Fill in the answers of requests; how much of each was read, by `id` of the request."""
    extents: dict[int, Extent] = {}
    for kind in dict.fromkeys(request.request_type for request in requests):
        asked = [request for request in requests if request.request_type == kind for _ in range(request.repeats or 1)]
        answers = getattr(lm, kind)(asked, disable_tqdm=True)
        for request, answer, extent in zip(asked, answers, lm.extents, strict=True):
            request.resps.append(answer)
            extents[id(request)] = extent
    return extents


def _outcome(
    prepared: Prepared, item: Item, requests: list[Instance], extents: Sequence[Extent], target: int
) -> Outcome:
    task, kind = prepared.task, prepared.kind
    task._instances = requests  # what the harness's evaluator filters, too
    task.apply_filters()
    answers = {name: [request.filtered_resps[name] for request in requests] for name in requests[0].filtered_resps}
    if kind not in answers:
        raise EvaluationError(f"{prepared.name} has no filter {kind!r}; it has {', '.join(answers)}")
    measured = {name: task.process_results(item.content, said) for name, said in answers.items()}
    metric, value = score(prepared.name, prepared.metric, measured[kind])
    read = max(extent.tokens - extent.cut for extent in extents)
    return Outcome(
        metric=metric,
        score=value,
        n=extents[0].tokens if requests[0].request_type == "loglikelihood_rolling" else 1,
        reached=min(read, target),  # of a text in windows, one window
        details=details(task.doc_to_target(item.content), answers[kind], measured, extents),
    )
