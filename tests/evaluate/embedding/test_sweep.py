"""Searches of an embedding model: scores, rows, what a method gains, and going on where it stopped."""

from dataclasses import replace

import numpy as np
import pytest

from ropewalk.errors import EvaluationError, MethodError, ModelError
from ropewalk.evaluate.compare import compare
from ropewalk.evaluate.embedding.bench import EmbeddingBench, Setup
from ropewalk.evaluate.embedding.pipeline import similarities, template_of
from ropewalk.evaluate.embedding.sets import RETRIEVAL
from ropewalk.evaluate.embedding.sweep import list_searches, sweep
from ropewalk.evaluate.row import results, scored_by
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from ropewalk.train.embedding.run import tune
from ropewalk.train.embedding.settings import TuneSettings
from tests.embedders import LIMIT

QUERIES, CANDIDATES = 12, 16
SETUP = Setup(queries=QUERIES, candidates=CANDIDATES)
TASKS = RETRIEVAL.names()
METHOD = "grouped-positions"


@pytest.fixture
def run(embedder, store):
    def run(tasks=TASKS, methods=(METHOD,), lengths=(180,), *, setup=SETUP, into=store, **options):
        searches = list_searches(list(tasks), list(methods), list(lengths), controls=options.pop("controls", True))
        done = sweep(EmbeddingBench(embedder, name="tiny", setup=setup), searches, into, **options)
        return done, collect(into, done.keys)

    return run


def score(rows, task, label):
    chosen = [row.scores[0] for row in rows if row.key.task == task and row.label == label]
    assert len(chosen) == QUERIES
    return sum(chosen) / QUERIES


@pytest.mark.parametrize("task", TASKS)
def test_extended_model_finds_what_the_truncating_one_cut_off(task, run) -> None:
    _, rows = run([task])
    cut = score(rows, task, "none")
    assert score(rows, task, METHOD) >= cut + 0.3
    assert score(rows, task, "bm25") >= 0.9
    for row in rows:
        if row.label == "none" and row.details["depth"] > 0.5:  # behind the limit: all documents look alike
            assert (row.scores, row.details["ndcg@10"]) == ((0.0,), 0.0)


def test_stock_scores_are_those_of_the_pipeline_itself(run, embedder) -> None:
    _, rows = run(["longembed-needle"], ["none"], [60], controls=False)
    found = RETRIEVAL.get("longembed-needle").build(
        embedder.tokenizer, 60, seed=0, corpus="sotu", queries=QUERIES, candidates=CANDIDATES
    )
    asked, read = (embedder.encode(list(texts)) for texts in (found.queries, found.documents))
    hits = [float(np.argmax(read @ one) == gold) for one, gold in zip(asked, found.golds, strict=True)]
    assert [row.scores[0] for row in rows] == hits
    assert 0 < sum(hits) < QUERIES


def test_rows_say_what_was_measured(run) -> None:
    _, rows = run(["longembed-needle"], [METHOD], [100, 180])
    row = next(row for row in rows if row.label == METHOD and row.key.length == 100)
    assert row.key.protocol == f"longembed-needle/1, {CANDIDATES} documents"
    assert row.key.resolved.startswith("grouped-positions:group=")
    assert (row.target_length, row.metric, row.n, row.key.dtype) == (180, "accuracy@1", 1, "float32")
    assert (row.details["pretrained_length"], row.details["read"]) == (LIMIT, 180)
    assert 95 <= row.reached <= 100
    assert row.seconds > 0 and row.corpus == "sotu"
    stock = next(row for row in rows if row.label == "none")
    assert (stock.key.resolved, stock.details["read"]) == (f"none:limit={LIMIT}", LIMIT)
    assert len({row.key.plan_sha256 for row in rows}) == 2
    result = next(one for one in results(scored_by(rows, "ndcg@10")) if one.method == METHOD)
    assert (result.n, len(result.scores)) == (QUERIES, QUERIES)
    assert result.ci95[0] <= result.score <= result.ci95[1]


def test_methods_pair_up_query_by_query(run) -> None:
    _, rows = run()
    for one in compare(rows, "none", METHOD):
        assert one.difference is not None
        assert one.difference.documents == QUERIES
        assert one.second_mean > one.first_mean


def test_the_model_is_left_as_it_was(run, embedder) -> None:
    before = embedder.encode(["the sky is blue " * 30])
    run([TASKS[0]], controls=False)
    assert np.array_equal(embedder.encode(["the sky is blue " * 30]), before)
    assert embedder.max_seq_length == LIMIT


def test_stopped_sweep_goes_on_and_scores_as_an_unbroken_one(run, store, tmp_path) -> None:
    begun = []

    def stop(step):
        begun.append(step.search)
        if len(set(begun)) == 4 and 0.4 < step.fraction < 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    kept = store.rows()
    assert len(kept) == 3 * QUERIES
    assert store.interrupted() == []  # the claim was given back
    done, rows = run()
    assert done.measured == 3 * QUERIES
    again, _ = run()
    assert again.measured == 0
    with Store(tmp_path / "unbroken.db") as other:
        _, unbroken = run(into=other)
    assert [(row.key, row.scores, row.prompt_sha256) for row in rows] == [
        (row.key, row.scores, row.prompt_sha256) for row in unbroken
    ]


def test_a_search_that_lost_some_queries_is_measured_again(run, store) -> None:
    done, rows = run([TASKS[0]], controls=False)
    store._db.execute("DELETE FROM samples WHERE document > 6")
    done, again = run([TASKS[0]], controls=False)
    assert done.measured == QUERIES - 7
    assert [row.scores for row in again] == [row.scores for row in rows]


def test_estimate_knows_what_was_measured_before(run, store) -> None:
    seen = []
    _, rows = run(["longembed-needle"], lengths=[100], before=seen.append)
    assert (seen[0].samples, seen[0].measured) == (3 * QUERIES, 0)
    assert seen[0].tokens == CANDIDATES * (LIMIT + 100)
    assert seen[0].seconds > 0 and seen[0].bytes > 0
    store._db.execute("DELETE FROM samples WHERE control = '' AND document = 0")
    run(["longembed-needle"], lengths=[100], before=seen.append)
    spent = sum(row.seconds for row in rows if not row.key.control)
    assert seen[1].measured == 2 * QUERIES
    assert seen[1].seconds == pytest.approx(spent, rel=0.5)
    run(["longembed-needle"], lengths=[100], before=seen.append)
    assert (seen[2].samples, seen[2].seconds) == (0, 0.0)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        (["grouped-position"], MethodError, "unknown method 'grouped-position'; did you mean 'grouped-positions'"),
        (["grouped-positions:grup=2"], MethodError, "grup"),
        (["yarn"], ModelError, "is not a RoPE model"),
    ],
)
def test_methods_that_do_not_fit_are_refused(methods, error, message, run) -> None:
    with pytest.raises(error, match=message):
        run(methods=methods)


def test_lengths_are_refused_before_anything_is_measured(run, store) -> None:
    with pytest.raises(EvaluationError, match="got a length of 20; ask for a longer one"):
        run(lengths=[100, 20])
    assert store.rows() == []
    with pytest.raises(EvaluationError, match="methods set up for 64 tokens cannot be tested at 100"):
        list_searches(["longembed-needle"], ["none"], [100], target_length=64)
    with pytest.raises(EvaluationError, match="nothing to evaluate"):
        list_searches(["longembed-needle"], ["none"], [])


@pytest.mark.parametrize("queries", [0, 9])
def test_more_queries_than_documents_are_refused(queries) -> None:
    with pytest.raises(EvaluationError, match=f"{queries} queries in 8 documents"):
        Setup(queries=queries, candidates=8)


def test_empty_texts_and_broken_embeddings_are_refused(embedder, monkeypatch) -> None:
    def ask(queries, documents):
        return similarities(embedder, queries, documents, tokens=16, report=lambda part: None)

    assert ask(["a"], ["b", "c"]).shape == (1, 2)
    with pytest.raises(EvaluationError, match="document 1 is empty"):
        ask(["a"], ["b", "  "])
    with pytest.raises(EvaluationError, match="query 0 is empty"):
        ask([""], ["b"])
    weight = embedder[0].model.embeddings.word_embeddings.weight
    monkeypatch.setattr(weight, "data", weight.data * float("nan"))
    with pytest.raises(EvaluationError, match="not finite"):
        ask(["a"], ["b"])


def test_prompts_stand_in_rows_and_count_as_tokens(embedder, run, monkeypatch) -> None:
    assert template_of(embedder) == ""
    monkeypatch.setattr(embedder, "prompts", {"query": "question ", "passage": "the sky "})
    assert template_of(embedder) == '["question ", "the sky "]'
    _, rows = run(["longembed-needle"], lengths=[100], controls=False)
    assert rows[0].key.template == '["question ", "the sky "]'
    assert max(row.reached for row in rows) <= 100


def test_rows_are_not_tested_on_the_text_that_they_were_trained_on(run, embedder, tmp_path) -> None:
    pairs = [(f"the {i} bridge", f"it was built in {i}") for i in range(8)]
    settings = TuneSettings(
        method="interpolated-positions", length=8, target_length=2 * LIMIT, steps=1, batch=4, rate=1e-3, warmup=0
    )
    tune(embedder, settings, pairs, tmp_path / "run", data=["moby-dick"])
    method = f"tuned-positions:weights={tmp_path / 'run'}"
    run(methods=[method], lengths=[80])
    seen = replace(SETUP, corpus="moby-dick")
    with pytest.raises(EvaluationError, match="was trained on 'moby-dick'; test it on another text"):
        run(methods=[method], lengths=[80], setup=seen)
