"""`ropewalk eval`."""

import json
from pathlib import Path

import pytest

from ropewalk.evaluate.rowfile import write_rows
from ropewalk.evaluate.store import Store
from tests.cli.conftest import Call, Run


def test_eval_answers_with_one_result_per_task_length_and_method(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    methods = ("--method", "none", "--method", "self-extend:group=32")
    options = (
        "--lengths",
        "600,1k",
        "--samples",
        1,
        "--seeds",
        1,
        "--no-controls",
        "--store",
        tmp_path / "r.db",
        "--json",
    )
    done = run("eval", "needle", "perplexity", "--model", tiny_model, *methods, *options)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    cells = [(one["task"], one["length"], one["method"]) for one in results]
    wanted = [
        (task, length, method)
        for length in (600, 1024)
        for task in ("needle", "perplexity")
        for method in ("none", "self-extend:group=32")
    ]
    assert cells == wanted
    for one in results:
        assert {"metric", "score", "n", "ci95", "seconds"} <= one.keys()
        assert one["n"] == 10 if one["task"] == "needle" else one["n"] > 0


def test_eval_prints_a_table_and_its_progress(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    command = ("eval", "perplexity", "--model", tiny_model, "--method", "yarn", "--lengths", "600", "--samples", 2)
    command += ("--no-controls",)
    code, out, err = call(*command, "--store", tmp_path / "r.db")
    assert code == 0, err
    assert "perplexity" in out and "yarn" in out and "fewer than 6 documents" in out
    assert "perplexity 600 yarn, document 1" in err and "2 of 2 samples measured now" in err
    code, again, err = call(*command, "--store", tmp_path / "r.db")
    assert (code, again) == (0, out) and "0 of 2 samples measured now" in err


def test_rows_of_another_store_are_not_measured_again(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    command = ("eval", "perplexity", "--model", tiny_model, "--lengths", "600", "--samples", 2, "--no-controls")
    code, first, err = call(*command, "--store", tmp_path / "here.db")
    assert code == 0, err
    with Store(tmp_path / "here.db") as store:
        write_rows(tmp_path / "rows.jsonl", store.rows())
    code, again, err = call(*command, "--store", tmp_path / "there.db", "--known", tmp_path / "rows.jsonl")
    assert (code, again) == (0, first)
    assert "2 of 2 samples" in err and "0 of 2 samples measured now" in err


def test_controls_are_added_and_what_cannot_be_is_said(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    command = ("eval", "needle", "--model", tiny_model, "--method", "self-extend:group=32", "--lengths", "600")
    code, out, err = call(*command, "--samples", 1, "--store", tmp_path / "r.db")
    assert code == 0, err
    # The window of 64 tokens has no room for a whole document, so there is no stock model inside it.
    assert [line.split()[2] for line in out.splitlines()[1:6]] == [
        "none",
        "self-extend:group=32",
        "truncate-middle",
        "bm25:tokens=8",
        "needle-only",
    ]
    assert "needle at 64, none: left out; a needle document of 64 tokens is too short" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("neddle", "--method", "none", "--lengths", "600"), "unknown task 'neddle'; did you mean 'needle'"),
        (("needle", "--method", "nune", "--lengths", "600"), "unknown method 'nune'; did you mean 'none'?"),
        (("needle", "--method", "none", "--lengths", "4k,lots"), "'lots' is not a length"),
        (("needle", "--method", "none", "--lengths", "50"), "too short"),
        (("needle", "--method", "self-extend:window=60", "--lengths", "30"), "larger than the target"),
        (("needle", "--method", "none", "--lengths", "600", "--samples", "0"), "'--samples'"),
        (("needle", "--method", "none"), "Missing option '--lengths'"),
        (("needle", "--lengths", "600", "--target-length", "500"), "raise the target length"),
        (("needle", "--lengths", "600", "--seeds", "a"), "'a' is no list of seeds"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, tiny_model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = call("eval", *arguments, "--model", tiny_model, "--store", tmp_path / "r.db")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
