"""The bridge to MTEB, against MTEB itself on the extended pipeline, with data at hand."""

import json
import subprocess
import sys

import mteb
import pytest
from mteb.mocks.mock_tasks.sts import MockSTSTask

import ropewalk
from ropewalk.errors import EvaluationError, MethodError
from ropewalk.evaluate.embedding.sets import RETRIEVAL
from ropewalk.evaluate.mteb import load_tasks, own_task, run_mteb
from ropewalk.evaluate.row import results
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from tests.embedders import LIMIT

# Of calls that mteb makes when it is given a SentenceTransformer.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The fill_missing parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `get_sentence_embedding_dimension`:FutureWarning"),
]

METHOD = "grouped-positions"
TARGET = 180
QUERIES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A retrieval task of long documents in the form of BEIR; some queries have two right documents."""
    found = RETRIEVAL.get("longembed-needle").build(
        tokenizer, TARGET, seed=5, corpus="sotu", queries=QUERIES, candidates=12
    )
    folder = tmp_path_factory.mktemp("mine") / "my-letters"
    write(
        folder, found.documents, found.queries, [{gold, (gold + query) % 12} for query, gold in enumerate(found.golds)]
    )
    return folder


def write(folder, documents, queries, judged):
    (folder / "qrels").mkdir(parents=True)
    records = [{"_id": f"d{index}", "text": text, "title": ""} for index, text in enumerate(documents)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, records)))
    records = [{"_id": f"q{index}", "text": text} for index, text in enumerate(queries)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = [f"q{query}\td{gold}\t1" for query, golds in enumerate(judged) for gold in sorted(golds)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))


@pytest.fixture
def run(embedder, folder, store):
    def run(methods=("none", METHOD), *, tasks=(), folders=(folder,), into=store, **options):
        given = {"target_length": TARGET, "name": "tiny", **options}
        done = run_mteb(embedder, tasks=tasks, folders=folders, methods=methods, store=into, **given)
        return done, collect(into, done.keys)

    return run


def test_scores_are_those_of_mteb(run, embedder, folder) -> None:
    _, rows = run()
    expected = {}
    settings = {"cache": None, "co2_tracker": False, "show_progress_bar": False, "encode_kwargs": {"batch_size": 1}}
    expected["none"] = mteb.evaluate(embedder, own_task(folder), **settings)[0].get_score()
    with ropewalk.extend(embedder, METHOD, target_length=TARGET):
        expected[METHOD] = mteb.evaluate(embedder, own_task(folder), **settings)[0].get_score()
    assert expected["none"] < expected[METHOD]
    found = {one.method: one for one in results(rows)}
    for method, score in expected.items():
        assert found[method].score == pytest.approx(score, abs=1e-5)
        assert len(set(found[method].documents)) == QUERIES
        assert found[method].details[0]["whole"]["ndcg_at_10"] == pytest.approx(score, abs=1e-5)


def test_rows_say_what_was_measured_and_pair_up(run) -> None:
    _, rows = run()
    stock, extended = rows[:QUERIES], rows[QUERIES:]
    assert [row.prompt_sha256 for row in stock] == [row.prompt_sha256 for row in extended]
    assert (stock[0].key.task, stock[0].metric, stock[0].corpus) == ("mteb/my-letters", "ndcg_at_10", "my-letters")
    assert stock[0].key.protocol == f"mteb {mteb.__version__}, test, default, ndcg_at_10"
    assert (stock[0].key.resolved, stock[0].reached) == (f"none:limit={LIMIT}", LIMIT)
    assert extended[0].key.resolved.startswith(METHOD) and extended[0].reached == TARGET
    assert {row.key.length for row in rows} == {TARGET}
    assert [row.details["query"] for row in stock] == sorted(f"q{index}" for index in range(QUERIES))


def test_stopped_run_goes_on(run, store, monkeypatch) -> None:
    def stop(step):
        if step.method == METHOD:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    assert len(store.rows()) == QUERIES
    done, rows = run()
    assert (done.measured, len(rows)) == (QUERIES, 2 * QUERIES)
    monkeypatch.setattr("ropewalk.evaluate.mteb.run._Runner._rows", None)  # nothing is left to measure
    assert run()[0].measured == 0


def test_other_tasks_have_one_score(run) -> None:
    task = MockSTSTask()
    _, rows = run(["none"], tasks=[task], folders=[])
    assert len(rows) == len(task.eval_splits)
    assert all(row.key.task == "mteb/MockSTSTask" and row.n == 1 and -1 <= row.scores[0] <= 1 for row in rows)
    assert rows[0].details["query"] is None
    assert rows[0].details["whole"]["cosine_spearman"] == rows[0].scores[0]


def test_changed_data_are_other_data(run, folder, tmp_path, tokenizer) -> None:
    changed = tmp_path / "my-letters"
    write(changed, ["one text", "another text"], ["one?"], [{0}])
    _, rows = run(["none"])
    _, other = run(["none"], folders=[changed])
    assert other[0].key.corpus_sha256 != rows[0].key.corpus_sha256


def test_longembeds_real_tasks_are_known_by_name() -> None:
    names = ["LEMBNarrativeQARetrieval", "LEMBQMSumRetrieval", "LEMBWikimQARetrieval", "LEMBSummScreenFDRetrieval"]
    assert [task.metadata.name for task in load_tasks(names)] == names
    assert set(names) < {task.metadata.name for task in load_tasks(["LongEmbed"])}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"tasks": ["LEMBQMSum"], "folders": []},
            EvaluationError,
            "mteb has no task or benchmark 'LEMBQMSum'.*LEMBQMSumRetrieval",
        ),
        ({"folders": []}, EvaluationError, "nothing to evaluate"),
        ({"batch_size": 0}, EvaluationError, "nothing to evaluate"),
        ({"methods": ["grouped-positions:grup=2"]}, MethodError, "grup"),
    ],
)
def test_what_cannot_be_run_is_refused(options, error, message, run, store) -> None:
    with pytest.raises(error, match=message):
        run(**options)
    assert store.rows() == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", '{"_id": "d0"}', "line 1 of .*corpus.jsonl': wanted"),
        (
            "corpus.jsonl",
            '{"_id": 7, "text": "one"}\n{"_id": "7", "text": "two"}',
            "there is an earlier line with _id '7'",
        ),
        ("corpus.jsonl", "no json", "line 1 of .*corpus.jsonl': wanted"),
        (
            "queries.jsonl",
            '{"_id": "q0", "text": " "}',
            "line 1 of .*queries.jsonl': the text of 'q0' is empty",
        ),
        ("qrels/test.tsv", "head\nq0 d0 1", "line 2 of .*test.tsv': wanted query id, document id and score"),
        ("qrels/test.tsv", "head\nq0\td9\t1", "there is no query 'q0' or no document 'd9'"),
        ("qrels/test.tsv", "head\n", "judges nothing"),
    ],
)
def test_malformed_folders_are_refused(file, text, message, tmp_path) -> None:
    folder = tmp_path / "mine"
    write(folder, ["one", "two"], ["one?"], [{0}])
    assert own_task(folder).metadata.name == "mine"
    (folder / file).write_text(text)
    with pytest.raises(EvaluationError, match=message):
        own_task(folder)


def test_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(EvaluationError, match=r"a folder of one's own has corpus\.jsonl, queries\.jsonl and qrels"):
        load_tasks([], [tmp_path / "nowhere"])


def test_importing_the_bridge_without_mteb_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['mteb'] = None; import ropewalk.evaluate.mteb.run"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "pip install 'ropewalk[mteb]'" in done.stderr


def test_a_second_store_gets_the_same_scores(run, tmp_path) -> None:
    _, rows = run([METHOD])
    with Store(tmp_path / "other.db") as other:
        _, again = run([METHOD], into=other)
    assert [row.scores for row in again] == [row.scores for row in rows]
