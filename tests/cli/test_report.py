"""`ropewalk report` on a store of made-up rows."""

import json
from pathlib import Path

import pytest

from ropewalk.evaluate.store import Store
from tests.cli.conftest import Call, Run
from tests.evaluate.report.rows import row
from tests.evaluate.samples import sample


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "results.db"
    with Store(path) as samples:
        for task in ("vt", "perplexity"):
            for method in ("none", "dpe"):
                for document in range(2):
                    samples.append(row(task, method, document, length=4096))
    return path


def test_report_writes_page_and_figures_and_answers_in_json(run: Run, store: Path, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "out", "--title", "Ten <documents>", "--pretrained-length", "2k", "--json")
    done = run("report", store, *options)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["samples"], answer["interrupted"]) == (8, 0)
    page = Path(answer["page"])
    assert page == tmp_path / "out" / "report.html" and "<h1>Ten &lt;documents&gt;</h1>" in page.read_text()
    assert {Path(file) for file in answer["figures"]} == set((tmp_path / "out" / "figures").iterdir())


def test_rows_of_a_report_make_the_same_report_again(call: Call, store: Path, tmp_path: Path) -> None:
    assert call("report", store, "--output", tmp_path / "first")[0] == 0
    rows = tmp_path / "first" / "rows.jsonl"
    code, out, err = call("report", rows, "--output", tmp_path / "second")
    assert code == 0, err
    assert "8 samples" in out and (tmp_path / "second" / "rows.jsonl").read_bytes() == rows.read_bytes()
    code, _, err = call("report", tmp_path / "nothing.jsonl", "--output", tmp_path / "third")
    assert code == 2 and "there are no rows at" in err


def test_only_the_tasks_asked_for_are_shown(call: Call, store: Path, tmp_path: Path) -> None:
    code, out, _ = call("report", store, "--task", "vt", "--output", tmp_path / "out")
    assert code == 0
    assert "4 samples" in out
    assert not [file for file in (tmp_path / "out" / "figures").iterdir() if "perplexity" in file.name]


def test_what_cannot_be_reported_is_one_clear_line(call: Call, store: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "missing.db",), "there is no store at"),
        ((store, "--task", "needel"), "no samples of needel"),
        ((store, "--output", store), "it is a file; name a folder with --output"),
    ):
        code, out, err = call("report", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ") and message in err and err.count("\n") == 1
    empty = tmp_path / "empty.db"
    Store(empty).close()
    code, _, err = call("report", empty, "--output", tmp_path / "out")
    assert code == 2 and "no samples to report" in err


def test_interrupted_samples_are_counted(run: Run, store: Path, tmp_path: Path) -> None:
    with Store(store) as samples:
        samples._db.execute("INSERT INTO claims VALUES (?, ?, ?)", (sample().key.to_text(), 2**22, 1.0))
    done = run("report", store, "--output", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["interrupted"] == 1
    assert "1 samples were interrupted" in (tmp_path / "out" / "report.html").read_text()
