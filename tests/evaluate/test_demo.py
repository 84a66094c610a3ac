import io
import json

import pytest
from rich.console import Console

from ropewalk.errors import EvaluationError, MethodError
from ropewalk.evaluate import demo
from ropewalk.evaluate.demo_table import Board, split_loss


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=160)


def test_demo_measures_every_method_on_one_document(folder, console, tmp_path):
    methods, out = ("none", "yarn", "self-extend"), tmp_path / "out"
    asked = (*methods, "yarn")
    report = demo.run(model=str(folder), length=1024, methods=asked, seed=1, output=out, console=console)
    assert json.loads((out / "demo.json").read_text()) == json.loads(json.dumps(report))
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    results = report["results"]
    assert [result["method"] for result in results] == list(methods)
    assert len({result["documents_sha256"] for result in results}) == 1
    assert all(result["n"] == 10 and result["peak_bytes"] > 0 for result in results)
    assert {result["model"] for result in results} == {str(folder)}
    assert report["pretrained_length"] == 512
    told = [fact["answer"] for fact in report["facts"]]
    assert all([answer["answer"] for answer in result["details"][0]["answers"]] == told for result in results)
    printed = console.file.getvalue()
    assert "self-extend: reading 42%" in printed
    assert all(fact["answer"] in printed for fact in report["facts"])


def test_demo_refuses_an_unknown_method_before_any_work(folder, console, tmp_path):
    with pytest.raises(MethodError, match="self-extend"):
        demo.run(model=str(folder), length=1024, methods=("self-extnd",), output=tmp_path, console=console)


def test_demo_without_methods_is_refused(console, tmp_path):
    with pytest.raises(EvaluationError, match="no method"):
        demo.run(methods=(), output=tmp_path, console=console)


def test_demo_refuses_a_length_too_short_for_its_facts(folder, console, tmp_path):
    with pytest.raises(EvaluationError, match="too short"):
        demo.run(model=str(folder), length=200, methods=("none",), output=tmp_path, console=console)


def test_table_shows_progress_and_then_results(console):
    board = Board(console, ["none", "dpe"], window=8192, question="The sky is")
    board.update("none", {"stage": "read", "fraction": 0.26})
    console.print(board.table())
    assert "reading 26%" in console.file.getvalue()
    answers = [{"prefix": "The sky is", "answer": "blue", "text": " blue.\n\nThe"}]
    stretches = [[0, 8192, 3.0], [8192, 16384, 4.0]]
    details = {"log_probability": -0.5, "loss_last": 4.25, "loss_by_position": stretches, "answers": answers}
    result = {"score": 0.9, "n": 10, "ci95": [0.596, 0.982], "seconds": 61.2, "details": [details]}
    board.update("none", {"stage": "done", "fraction": 1.0, "result": result, "peak_bytes": 3 * 2**29})
    console.print(board.table())
    for shown in ("9/10", "(60-98%)", "-0.50", "3.00", "4.00", "4.25", "blue. The", "61 s", "1.5 GiB", "waiting"):
        assert shown in console.file.getvalue()


def test_loss_is_split_at_the_trained_window():
    stretches = [(0, 4, 1.0), (4, 8, 2.0), (8, 12, 5.0)]
    assert split_loss(stretches, 8) == (1.5, 5.0)
    assert split_loss(stretches, 12) == (pytest.approx(8 / 3), None)
