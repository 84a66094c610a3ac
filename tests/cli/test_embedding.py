"""`ropewalk eval longembed` and `ropewalk mteb`, on a tiny pipeline in a folder."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Run
from tests.embedders import LIMIT, tiny_embedder

METHOD = "grouped-positions"


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved "pipeline", and its bare "encoder"."""
    folder = tmp_path_factory.mktemp("embedders")
    tiny_embedder(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_eval_longembed_answers_with_one_json_object(run: Run, embedders: Path, store: Path) -> None:
    sizes = ("--samples", 6, "--candidates", 8, "--lengths", "60,180", "--store", store)
    done = run("eval", "longembed", "--model", embedders / "pipeline", "--method", METHOD, *sizes, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["results"]
    assert {(one["task"], one["length"], one["method"], one["metric"]) for one in found} == {
        (f"longembed-{task}", length, method, metric)
        for task in ("passkey", "needle")
        for length in (60, 180)
        for method in ("none", METHOD, "bm25")
        for metric in ("accuracy@1", "ndcg@10")
    }
    assert all(one["n"] == 6 and one["target_length"] == 180 for one in found)
    for one in found:
        assert 0 <= one["ci95"][0] <= one["score"] <= one["ci95"][1] <= 1
    assert "72 of 72 queries measured now" in done.stderr
    assert "queries to measure" in done.stderr


def test_eval_longembed_prints_a_table(call: Call, embedders: Path, store: Path) -> None:
    given = ("--model", embedders / "encoder", "--pooling", "mean", "--lengths", "64", "--store", store)
    given = (*given, "--samples", 3, "--candidates", 4, "--no-controls")
    code, out, err = call("eval", "longembed-needle", *given)
    assert code == 0, err
    assert "3 of 3 queries measured now" in err
    assert "accuracy@1" in out and "nDCG@10" in out and "longembed-needle" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("longembed", "needle"), "some ask an embedding model and some a language model"),
        (("longembed-nedle",), "did you mean 'longembed-needle'"),
        (("longembed", "--method", "grouped-position"), "did you mean 'grouped-positions'"),
        (("longembed", "--workers", "2"), "longembed runs in one process"),
        (("longembed", "--samples", "9", "--candidates", "4"), "9 queries in 4 documents"),
        (("needle", "--candidates", "4"), "are for longembed"),
    ],
)
def test_eval_longembed_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, call: Call, embedders: Path, store: Path
) -> None:
    code, out, err = call("eval", *arguments, "--lengths", "64", "--model", embedders / "pipeline", "--store", store)
    last = err.strip().splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("error: ") and message in last


def test_a_model_that_is_no_embedder_is_refused(call: Call, embedders: Path, store: Path) -> None:
    code, _, err = call("eval", "longembed", "--lengths", "64", "--model", embedders / "encoder", "--store", store)
    assert code == 2
    assert "is no saved pipeline; say how its states become one embedding" in err.strip().splitlines()[-1]


def test_mteb_scores_a_folder_of_ones_own(run: Run, embedders: Path, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    (folder / "qrels").mkdir(parents=True)
    texts = ["the sky is blue " * 20 + word for word in ("coffee", "piano", "honey")]  # MTEB takes the last of equals
    records = [json.dumps({"_id": f"d{index}", "text": text}) for index, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(records))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "coffee"}))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    methods = ("--method", "none", "--method", METHOD, "--target-length", "120")
    done = run("mteb", "--data", folder, "--model", embedders / "pipeline", *methods, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    stock, extended = json.loads(done.stdout)["results"]
    assert (stock["task"], stock["metric"], stock["reached"]) == ("mteb/letters", "ndcg_at_10", LIMIT)
    assert stock["score"] < extended["score"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to evaluate"),
        (("--data", "nowhere"), "a folder of one's own has corpus.jsonl"),
        (("--method", "grouped-position"), "did you mean 'grouped-positions'"),
    ],
)
def test_mteb_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, call: Call, embedders: Path, store: Path
) -> None:
    code, out, err = call("mteb", *arguments, "--model", embedders / "pipeline", "--store", store)
    last = err.strip().splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("error: ") and message in last
