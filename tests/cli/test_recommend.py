"""`ropewalk recommend`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ropewalk.evaluate.store import Store
from tests.cli.conftest import WINDOW, Call, Run
from tests.evaluate.samples import sample


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "r.db"
    with Store(path) as kept:
        for method, score in (("none", 0.1), ("dpe", 0.8)):
            for document in range(10):
                row = sample(document, [score + document / 100], method=method, length=8 * WINDOW)
                kept.append(replace(row, model=str(tiny_model), target_length=8 * WINDOW))
    return path


def test_recommend_answers_with_a_method_and_its_evidence(run: Run, store: Path, tiny_model: Path) -> None:
    done = run("recommend", tiny_model, "--target", 8 * WINDOW, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["method"], answer["length"], answer["pretrained_length"]) == ("dpe", 8 * WINDOW, WINDOW)
    assert answer["candidates"][0]["against_stock"]["mean"] == pytest.approx(0.7)


def test_recommend_prints_the_method_first(call: Call, store: Path, tiny_model: Path) -> None:
    code, out, err = call("recommend", tiny_model, "--target", 8 * WINDOW, "--store", store)
    assert code == 0, err
    assert out.startswith("dpe: highest score at 512 tokens")


def test_model_without_measurements_is_one_clear_line(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    code, out, err = call("recommend", tiny_model, "--target", "1k", "--store", tmp_path / "none.db")
    assert (code, out) == (2, "")
    assert "nothing was measured with" in err.splitlines()[-1] and "docs/choosing.md" in err.splitlines()[-1]
