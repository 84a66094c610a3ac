"""`ropewalk compare`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ropewalk.evaluate.store import Store
from tests.cli.conftest import Call, Run
from tests.evaluate.samples import sample


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six documents of the stock model and of a method that is better by one half on four of them."""
    path = tmp_path / "r.db"
    with Store(path) as kept:
        for document in range(6):
            kept.append(sample(document, [0.0, float(document == 5)]))
            gain = 1.0 if document < 4 else 0.0
            row = sample(document, [gain, float(document == 5)], method="dpe")
            row.details["loss_last"] = 2.0 + document
            kept.append(row)
    return path


def test_compare_answers_with_paired_differences(run: Run, store: Path) -> None:
    done = run("compare", "none", "dpe", "--store", store, "--find", 0.1, "--json")
    assert done.returncode == 0, done.stderr
    [one] = json.loads(done.stdout)["comparisons"]
    assert one["difference"]["mean"] == pytest.approx(4 / 12)
    assert one["difference"]["documents"] == 6
    assert one["needed"] > 6


def test_compare_prints_a_table_with_what_is_needed(call: Call, store: Path) -> None:
    code, out, err = call("compare", "none", "dpe", "--store", store, "--find", 0.1)
    assert code == 0, err
    assert "+0.333" in out and "needed" in out


def test_target_length_chooses_among_methods_only(run: Run, store: Path) -> None:
    with Store(store) as kept:
        for document in range(6):
            other = sample(document, [1.0, 1.0], method="dpe", resolved="dpe:window=7", plan_sha256="other")
            kept.append(replace(other, target_length=32768))
            kept.append(sample(document, [0.5, 0.5], method="gpt", backend="endpoint"))
    for stock in ("none", "gpt"):
        done = run("compare", stock, "dpe", "--store", store, "--target-length", "32k", "--json")
        assert done.returncode == 0, done.stderr
        [one] = json.loads(done.stdout)["comparisons"]
        assert (one["second"], one["second_mean"]) == ("dpe:window=7", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none", "yarn"), "no samples of 'yarn' here; there are: dpe, none"),
        (("none", "dpe", "--by", "loss_lost"), "unknown measure 'loss_lost'"),
        (("none", "dpe", "--by", "loss_last"), "no samples of 'none'"),
        (("none", "dpe", "--store", "nowhere.db"), "no store at 'nowhere.db'"),
    ],
)
def test_bad_input_is_one_clear_line(call: Call, store: Path, arguments: tuple[str, ...], message: str) -> None:
    given = arguments if "--store" in arguments else (*arguments, "--store", store)
    code, out, err = call("compare", *given)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
