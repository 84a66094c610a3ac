"""Budgets, and the file that a killed run goes on from."""

import json
from types import SimpleNamespace

import pytest

from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.request import Request, RunFile
from ropewalk.calibrate.settle import time_reading
from ropewalk.errors import EvaluationError


def test_budget_is_tokens_or_time():
    assert parse_budget("512k").readings(1024, seconds=0.0, spent=1e9, used=0) == 512
    assert parse_budget("512k").readings(1024, seconds=0.0, spent=0.0, used=1025) == 510
    assert parse_budget("100").readings(1024, seconds=0.0, spent=0.0, used=200) == 0
    assert parse_budget("20min").seconds == 1200 and parse_budget("1.5h").seconds == 5400
    # Nine tenths of the 1,000 seconds that are left, and the one that was read already.
    assert parse_budget("20min").readings(1024, seconds=100.0, spent=200.0, used=0) == 10
    assert parse_budget("20min").readings(1024, seconds=100.0, spent=5000.0, used=0) == 1


@pytest.mark.parametrize("text", ["", "soon", "20 minutes", "0min", "-3h", "1.5", "10m in"])
def test_other_budgets_are_refused(text):
    with pytest.raises(EvaluationError, match="is no budget"):
        parse_budget(text)


def test_run_file_goes_on_with_what_was_settled(tmp_path):
    path = tmp_path / "run.json"
    RunFile(path, Request("m", 1024, "20min", search=("window",)), {"a": [1, 2]}).settle(readings=30, groups=[(0, 4)])
    again = RunFile(path, Request("m", 1024, "20min", search=("window",)), {"a": [1, 2]})
    assert again.settled == {"readings": 30, "groups": [[0, 4]]}
    assert RunFile(path, Request("m", 1024, "40min", search=("window",)), {"a": [1, 2]}).settled == {}


@pytest.mark.parametrize(
    ("request_", "about"), [(Request("m", 2048, "20min"), {"a": 1}), (Request("m", 1024, "20min"), {"a": 2})]
)
def test_run_file_of_another_request_is_refused(tmp_path, request_, about):
    RunFile(tmp_path / "run.json", Request("m", 1024, "20min"), {"a": 1})
    with pytest.raises(EvaluationError, match="was begun otherwise"):
        RunFile(tmp_path / "run.json", request_, about)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_broken_run_file_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"run\.json"):
        RunFile(tmp_path / "run.json", Request("m", 1024, "20min"), {})


def test_request_is_plain_json_and_its_protocol_is_known():
    value = Request("m", 1024, "20min", search=("window",)).to_json()
    assert json.loads(json.dumps(value)) == value
    with pytest.raises(EvaluationError, match="unknown protocol 'papers'"):
        Request("m", 1024, "20min", protocol="papers")


class Machine:
    """Reads in 40 seconds, but finds what was stored at once."""

    def __init__(self, stored):
        self.stored, self.now, self.asked = stored, 0.0, []

    def __call__(self, documents):
        self.asked += documents
        seconds = [100.0 if at in self.stored else 40.0 for at in documents]  # it was busier then
        self.now += max(0.1 if at in self.stored else 40.0 for at in documents)
        return [SimpleNamespace(seconds=each) for each in seconds]


@pytest.mark.parametrize(
    ("stored", "workers", "seconds", "asked"),
    [
        ((), 1, 40.0, [0]),
        ((0,), 1, 40.0, [0, 1]),
        ((0, 1), 2, 20.0, [0, 1, 2, 3]),
        (range(8), 1, 100.0, list(range(8))),
    ],
)
def test_reading_is_timed_anew_and_not_by_what_an_earlier_command_stored(monkeypatch, stored, workers, seconds, asked):
    machine = Machine(stored)
    monkeypatch.setattr("ropewalk.calibrate.settle.monotonic", lambda: machine.now)
    assert time_reading(machine, workers=workers, documents=8) == seconds
    assert machine.asked == asked
