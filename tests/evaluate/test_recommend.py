from dataclasses import replace

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.recommend import recommend
from tests.evaluate.samples import sample

WINDOW = 4096


def rows_of(method, length, scores, *, seconds=10.0, target=16384):
    """One row a document, with one score each."""
    made = [sample(document, [score], method=method, length=length) for document, score in enumerate(scores)]
    return [replace(row, cpu_seconds=seconds, target_length=target) for row in made]


def table(**beyond):
    """Twelve documents at 4k, where all are alike, and at 16k with the scores given."""
    rows = []
    for name, (score, seconds) in beyond.items():
        method = name.replace("_", "-")
        rows += rows_of(method, 4096, [1.0] * 6 + [0.5] * 6, seconds=seconds / 4)
        rows += rows_of(method, 16384, [score] * 10 + [score - 0.1, score + 0.1], seconds=seconds)
    return rows


def test_best_method_is_named_with_its_gain_and_its_cost_in_short_texts():
    made = recommend(table(none=(0.1, 8), yarn=(0.6, 8), dpe=(0.8, 12)), 16384, WINDOW)
    assert (made.method, made.length, made.cheaper) == ("dpe", 16384, ())
    best = made.candidates[0]
    assert best.against_stock.mean == pytest.approx(0.7) and best.against_stock.interval.low > 0
    assert best.short.mean == 0.0
    assert [one.method for one in made.candidates] == ["dpe", "yarn", "none"]


def test_cheaper_method_that_the_data_do_not_tell_apart_is_named_too():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    rows += rows_of("yarn", 16384, [0.8] * 10 + [0.9, 0.65], seconds=8.0)
    made = recommend(rows, 16384, WINDOW)
    assert (made.method, made.cheaper) == ("dpe", ("yarn",))


def test_stock_model_is_named_where_nothing_is_better_beyond_doubt():
    rows = table(none=(0.5, 8))
    rows += rows_of("yarn", 16384, [0.4, 0.7] * 6)
    made = recommend(rows, 16384, WINDOW)
    assert made.method == "none" and "beyond doubt" in made.reason


def test_losses_are_better_when_smaller():
    rows = [
        replace(row, metric="nats_per_token")
        for row in rows_of("none", 16384, [6.0, 6.1] * 6) + rows_of("yarn", 16384, [3.0, 3.2] * 6)
    ]
    assert recommend(rows, 16384, WINDOW).method == "yarn"


def test_only_prompts_that_all_have_read_count():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    rows += rows_of("yarn", 16384, [0.7] * 6, seconds=8.0)
    made = recommend(rows, 16384, WINDOW)
    assert {one.documents for one in made.candidates} == {6}
    assert any("6 documents only" in remark for remark in made.remarks)


def test_target_beyond_what_was_tested_is_said_and_none_at_all_is_refused():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    made = recommend(rows, 32768, WINDOW)
    assert any("32768 tokens were not measured" in remark for remark in made.remarks)
    with pytest.raises(EvaluationError, match="nothing was measured beyond the 4096 tokens"):
        recommend([row for row in rows if row.key.length == 4096], 16384, WINDOW)
