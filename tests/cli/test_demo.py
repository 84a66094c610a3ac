"""`ropewalk demo`, on the tiny model; the real one is `make demo`."""

import json
from pathlib import Path

from tests.cli.conftest import Call, Run


def test_demo_writes_its_figure_and_answers_in_json(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    methods = ("--method", "none", "--method", "rerope")
    done = run("demo", "--model", tiny_model, "--length", "600", *methods, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [one["method"] for one in report["results"]] == ["none", "rerope"]
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "demo.json").read_text())["results"]
    assert "rerope" in done.stderr


def test_unknown_method_is_one_clear_line(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    code, out, err = call("demo", "--model", tiny_model, "--method", "reropee", "--output", tmp_path, "--json")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: unknown method 'reropee'; did you mean 'rerope'")


def test_output_that_is_a_file_is_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("")
    code, _, err = call("demo", "--output", file)
    assert code == 2
    assert "it is a file" in err
