import json

import pytest

from ropewalk.errors import EvaluationError, MethodError
from ropewalk.evaluate.run import evaluate
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.unit import Setup


@pytest.fixture
def results(model, tokenizer):
    methods = ("none", "yarn", "self-extend")
    return evaluate(model, tokenizer, tasks=("needle", "perplexity"), methods=methods, lengths=(1024,), samples=2)


def test_results_are_plain_json_with_their_protocol(results):
    for result in results:
        row = json.loads(json.dumps(result.to_json(), allow_nan=False))
        assert {"task", "method", "length", "metric", "score", "n", "ci95", "seconds"} <= set(row)
        assert row["protocol"] == TASKS.get(result.task).protocol
        assert row["ci95"][0] <= row["score"] <= row["ci95"][1]
        assert sum(row["scores"]) / len(row["scores"]) == pytest.approx(row["score"])
        assert row["reached"] <= row["length"] == 1024
    assert [(r.task, r.method) for r in results] == [
        (task, method) for task in ("needle", "perplexity") for method in ("none", "yarn", "self-extend")
    ]


def test_methods_see_the_same_documents_and_score_differently(results):
    for task in ("needle", "perplexity"):
        rows = [result for result in results if result.task == task]
        assert len({row.documents_sha256 for row in rows}) == 1
        assert len({row.details[0]["loss_last"] for row in rows}) == len(rows)


def test_needle_counts_facts_and_perplexity_tokens(results):
    assert {result.n for result in results if result.task == "needle"} == {20}
    assert {result.n for result in results if result.task == "perplexity"} == {2 * 1023}


def test_model_is_left_as_it_was(model, tokenizer):
    [before] = evaluate(model, tokenizer, tasks=["perplexity"], methods=["none"], lengths=[700], samples=1)
    evaluate(model, tokenizer, tasks=["perplexity"], methods=["self-extend"], lengths=[700], samples=1)
    [after] = evaluate(model, tokenizer, tasks=["perplexity"], methods=["none"], lengths=[700], samples=1)
    assert before.scores == after.scores


def test_evaluation_reports_steps(model, tokenizer):
    steps = []
    evaluate(model, tokenizer, tasks=["needle"], methods=["none"], lengths=[600], samples=2, progress=steps.append)
    assert {(step.unit.document, step.stage) for step in steps} == {
        (document, stage) for document in (0, 1) for stage in ("attach", "read", "ask", "done")
    }
    assert steps[-1].fraction == 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tasks": ["nedle"]}, EvaluationError, "did you mean 'needle'"),
        ({"tasks": []}, EvaluationError, "nothing to evaluate"),
        ({"samples": 0}, EvaluationError, "nothing to evaluate"),
        ({"lengths": [64]}, EvaluationError, "too short"),
        ({"tasks": ["perplexity"], "lengths": [255]}, EvaluationError, "ask for 256"),
        ({"setup": Setup(corpus="mobydick")}, EvaluationError, "moby-dick"),
        ({"methods": ["selfextend"]}, MethodError, "self-extend"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(model, tokenizer, change, error, message):
    asked = {"tasks": ["needle"], "methods": ["none"], "lengths": [1024], "samples": 1} | change
    with pytest.raises(error, match=message):
        evaluate(model, tokenizer, **asked)
