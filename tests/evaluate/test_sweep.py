"""Sweeps over a store: what is measured, what is skipped, what is added for comparison."""

from dataclasses import replace

import pytest

import ropewalk.evaluate.sweep as sweep_module
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.compare import compare
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect, sweep
from ropewalk.evaluate.tasks import TASKS, Sample
from ropewalk.evaluate.unit import CONTROLS, SEEDS, Setup, list_units, read_seeds


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "r.db") as opened:
        yield opened


@pytest.fixture
def bench(model, tokenizer):
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as made:
        yield made


def test_units_are_all_methods_of_one_document_before_the_next():
    units = list_units(["needle"], ["none", "dpe"], [2048, 1024], samples=2, seeds=[3, 4])
    assert [(unit.length, unit.seed, unit.document, unit.method) for unit in units] == [
        (length, seed, document, method)
        for length in (1024, 2048)
        for seed in (3, 4)
        for document in (0, 1)
        for method in ("none", "dpe")
    ]
    assert {unit.target_length for unit in units} == {2048}


def test_comparison_adds_the_stock_model_controls_and_the_window():
    units = list_units(["needle"], ["dpe"], [2048, 4096], samples=1, seeds=[0], window=1024)
    at = {length: [unit.label for unit in units if unit.length == length] for length in (1024, 2048, 4096)}
    assert at == {1024: ["none", "dpe"], 2048: ["none", "dpe", *CONTROLS], 4096: ["none", "dpe", *CONTROLS]}
    assert [unit.label for unit in units if not unit.extra] == ["dpe", "dpe"]
    assert {unit.target_length for unit in units} == {4096}
    inside = list_units(["needle"], ["none", "dpe"], [512, 1024], samples=1, seeds=[0], window=1024)
    assert {(unit.length, unit.label, unit.extra) for unit in inside} == {
        (length, method, False) for length in (512, 1024) for method in ("none", "dpe")
    }


def test_second_sweep_measures_only_what_is_missing(bench, store):
    first = list_units(["perplexity"], ["none", "yarn"], [600], samples=1, seeds=[0])
    more = list_units(["perplexity"], ["none", "yarn"], [600], samples=3, seeds=[0])
    assert sweep(bench, first, store).measured == 2
    done = sweep(bench, more, store)
    assert done.measured == 4
    rows = collect(store, done.keys)
    assert [(row.method, row.key.document) for row in rows] == [
        (method, document) for document in range(3) for method in ("none", "yarn")
    ]


def test_rows_say_what_was_run(bench, store, model, tokenizer):
    [unit] = list_units(["perplexity"], ["self-extend:group=4"], [700], samples=1, seeds=[2])
    [row] = collect(store, sweep(bench, [unit], store).keys)
    document = TASKS.get("perplexity").build(tokenizer, 700, seed=2 * SEEDS, corpus="sotu")
    assert row.prompt_sha256 == prompt_sha256(document.ids)
    assert row.key.resolved.startswith("self-extend:") and "group=4" in row.key.resolved
    assert (row.device, row.key.dtype, row.reached, row.target_length) == ("cpu", "float32", 700, 700)
    assert row.details["pretrained_length"] == 512 and row.cpu_seconds > 0 and row.seconds > 0
    assert row.peak_bytes is None or row.peak_bytes > 2**20


def test_controls_pair_with_the_whole_prompt(model, tokenizer, store):
    units = list_units(["needle"], ["yarn"], [1024], samples=2, seeds=[0], window=512)
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as bench:
        rows = collect(store, sweep(bench, units, store).keys)
    labels = {row.label for row in rows if row.key.length == 1024}
    assert {"none", "yarn", "truncate-middle", "needle-only"} <= labels
    [one] = compare(rows, "yarn", "truncate-middle")
    assert one.difference.documents == 2 and one.warnings[0].startswith("2 documents:")
    assert len(one.warnings) == 1
    assert all(row.reached <= 512 for row in rows if row.key.control)


def test_controls_of_ruler_are_stored_with_what_they_left_of_the_prompt(bench, store):
    units = list_units(["qa_ledger"], ["none"], [1024], samples=1, seeds=[0], window=512)
    rows = {row.label: row for row in collect(store, sweep(bench, units, store).keys) if row.key.length == 1024}
    assert set(rows) == {"none", "truncate-middle", "bm25:tokens=64", "needle-only"}
    assert 512 < rows["none"].reached <= 1024
    for label in ("truncate-middle", "bm25:tokens=64", "needle-only"):
        assert [rows[label].reached] == rows[label].details["tokens"] and rows[label].reached <= 512
        assert rows[label].prompt_sha256 == rows["none"].prompt_sha256


def test_scores_that_are_no_numbers_are_named_and_the_rest_is_kept(bench, store, monkeypatch):
    task = bench.task("perplexity")
    monkeypatch.setattr(
        task, "measure", lambda model, tokenizer, document, report: Sample((float("nan"),), 1, 0.0), raising=False
    )
    units = list_units(["perplexity", "passkey"], ["none"], [600], samples=1, seeds=[0])
    done = sweep(bench, units, store)
    assert done.measured == 1 and len(done.failures) == 1 and "perplexity at 600" in done.failures[0]
    with pytest.raises(EvaluationError, match="1 samples have no score"):
        done.refuse_failures()
    assert not store.interrupted() and store.claim(bench.key(units[0]))


def test_document_that_cannot_be_scored_does_not_stop_the_others(bench, store, monkeypatch):
    def fail(model, tokenizer, document, report):
        raise EvaluationError("no key tokens in it")

    monkeypatch.setattr(bench.task("perplexity"), "measure", fail, raising=False)
    units = list_units(["perplexity", "passkey"], ["none"], [600], samples=1, seeds=[0])
    done = sweep(bench, units, store)
    assert done.measured == 1
    assert done.failures == ["perplexity at 600, none, document 0: no key tokens in it"]


def test_sample_of_a_living_process_is_waited_for(bench, store, monkeypatch, tmp_path):
    [unit] = list_units(["perplexity"], ["none"], [600], samples=1, seeds=[0])
    row = bench.measure(unit, lambda stage, fraction: None)
    asked = []
    monkeypatch.setattr(store, "claim", lambda key: asked.append(key) or False)

    def other_process_stores_it(seconds):
        with Store(tmp_path / "r.db") as other:
            other.append(replace(row, model="other"))

    monkeypatch.setattr(sweep_module.time, "sleep", other_process_stores_it)
    done = sweep(bench, [unit], store)
    assert (done.measured, len(asked)) == (0, 1)
    assert collect(store, done.keys)[0].model == "other"


def test_calibration_prompts_are_refused(bench, store):
    [unit] = list_units(["perplexity"], ["none"], [600], samples=1, seeds=[0])
    store.mark_calibration([prompt_sha256(bench.document(unit).ids)], used_by="profile.json")
    with pytest.raises(EvaluationError, match=r"used to calibrate profile\.json"):
        sweep(bench, [unit], store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": SEEDS + 1}, "spread them over more seeds"),
        ({"samples": 0}, "nothing to evaluate"),
        ({"target_length": 100}, "raise the target length"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, message):
    with pytest.raises(EvaluationError, match=message):
        list_units(["needle"], ["none"], [1024], **({"samples": 1, "seeds": [0]} | change))
    with pytest.raises(EvaluationError, match="no list of seeds"):
        read_seeds("1,-2")
