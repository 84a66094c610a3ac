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


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_documents_choose_no_method_however_far_apart(count):
    rows = rows_of("none", 16384, [0.0] * count) + rows_of("yarn", 16384, [1.0] * count)
    made = recommend(rows, 16384, WINDOW)
    assert (made.method, made.candidates[0].method) == ("none", "yarn")
    assert "beyond doubt" in made.reason


def test_best_of_many_has_to_be_better_than_luck_with_many():
    rows = rows_of("none", 16384, [0.0] * 6) + rows_of("yarn", 16384, [1.0] * 6)
    assert recommend(rows, 16384, WINDOW).method == "yarn"
    for name in ("dpe", "string"):
        rows += rows_of(name, 16384, [0.9] * 6)
    made = recommend(rows, 16384, WINDOW)
    assert (made.method, made.candidates[0].method) == ("none", "yarn")
    best = made.candidates[0]
    assert best.against_stock.p < 0.05 < best.holm_p


@pytest.mark.parametrize("metric", ["nats_per_token", "nats_per_key_token", "bits_per_byte"])
def test_losses_are_better_when_smaller(metric):
    rows = [
        replace(row, metric=metric)
        for row in rows_of("none", 16384, [6.0, 6.1] * 6) + rows_of("yarn", 16384, [3.0, 3.2] * 6)
    ]
    assert recommend(rows, 16384, WINDOW).method == "yarn"


def test_losses_do_not_count_beside_scores():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    for name, loss in (("none", 6.0), ("dpe", 9.0)):
        made = [sample(i, [loss], method=name, length=16384, task="perplexity", prompt=f"text {i}") for i in range(12)]
        rows += [replace(row, metric="nats_per_token") for row in made]
    made = recommend(rows, 16384, WINDOW)
    assert made.method == "dpe" and made.candidates[0].documents == 12


def test_rows_of_another_model_of_that_name_and_of_endpoints_do_not_count():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    others = [replace(row, key=replace(row.key, dtype="bfloat16")) for row in rows_of("dpe", 16384, [0.0] * 12)]
    served = [replace(row, key=replace(row.key, backend="endpoint")) for row in rows_of("gpt", 16384, [1.0] * 12)]
    made = recommend([*others, *rows, *served], 16384, WINDOW)
    assert [one.method for one in made.candidates] == ["dpe", "none"]
    assert made.candidates[0].score == pytest.approx(0.8)
    assert made.remarks == ("12 samples of another fingerprint, tokenizer or number type are left out",)


def test_only_prompts_that_all_have_read_count():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    rows += rows_of("yarn", 16384, [0.7] * 6, seconds=8.0)
    made = recommend(rows, 16384, WINDOW)
    assert {one.documents for one in made.candidates} == {6}
    assert any("6 documents only" in remark for remark in made.remarks)


def test_length_with_few_documents_steps_back():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    for method, score in (("none", 0.9), ("dpe", 0.2)):
        rows += rows_of(method, 32768, [score] * 2)
    made = recommend(rows, 32768, WINDOW)
    assert (made.method, made.length) == ("dpe", 16384)
    assert "2 documents only at 32768 tokens" in made.remarks
    assert recommend([row for row in rows if row.key.length != 16384], 32768, WINDOW).length == 32768


def test_target_beyond_what_was_tested_is_said_and_none_at_all_is_refused():
    rows = table(none=(0.1, 8), dpe=(0.8, 12))
    made = recommend(rows, 32768, WINDOW)
    assert any("judged at 16384 tokens" in remark for remark in made.remarks)
    with pytest.raises(EvaluationError, match="nothing was measured beyond the 4096 tokens"):
        recommend([row for row in rows if row.key.length == 4096], 16384, WINDOW)


def test_stray_method_with_few_prompts_is_left_out_and_named():
    rows = table(none=(0.1, 8), dpe=(0.8, 12)) + rows_of("yarn", 16384, [1.0])
    made = recommend(rows, 16384, WINDOW)
    assert made.method == "dpe" and made.candidates[0].documents == 12
    assert "left out, with less than half of the 12 prompts: yarn" in made.remarks
