"""Sweeps on Ray; a cluster is started on this machine, which takes seconds."""

import os
import signal

import psutil
import pytest

from ropewalk.errors import EvaluationError, MethodError
from ropewalk.evaluate.cluster import sweep_on_ray
from ropewalk.evaluate.launch import launch
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from ropewalk.evaluate.unit import Setup, list_units

pytestmark = pytest.mark.slow


@pytest.fixture
def saved(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_ray_workers_score_as_processes_do(saved, tmp_path):
    units = list_units(["perplexity", "needle"], ["none", "self-extend"], [600], samples=2, seeds=[0])
    here = launch(saved, units, Setup(), tmp_path / "here.db", workers=2)
    there = sweep_on_ray(saved, units, Setup(), tmp_path / "there.db", address="local", workers=2)
    assert (here.measured, there.measured) == (8, 8)
    with Store(tmp_path / "here.db") as ours, Store(tmp_path / "there.db") as theirs:
        first, second = collect(ours, here.keys), collect(theirs, there.keys)
    assert [row.key for row in first] == [row.key for row in second]
    assert [row.scores for row in first] == [row.scores for row in second]
    again = sweep_on_ray(saved, units, Setup(), tmp_path / "there.db", address="local", workers=1)
    assert again.measured == 0 and again.keys == there.keys


def test_what_stops_a_worker_is_its_own_message(saved, tmp_path):
    with pytest.raises(MethodError):
        units = list_units(["needle"], ["nune"], [600], samples=1, seeds=[0])
        sweep_on_ray(saved, units, Setup(), tmp_path / "r.db", address="local", workers=1)
    with pytest.raises(EvaluationError, match="no Ray cluster at 'auto'"):
        sweep_on_ray(saved, units, Setup(), tmp_path / "r.db", address="auto", workers=1)


def _measurers():
    return [each for each in psutil.process_iter(["cmdline"]) if "Measurer" in " ".join(each.info["cmdline"] or [])]


def test_worker_that_dies_loses_only_its_sample_which_is_tried_again(saved, tmp_path):
    units = list_units(["perplexity"], ["none", "self-extend"], [600], samples=3, seeds=[0])
    here = launch(saved, units, Setup(), tmp_path / "here.db", workers=1)
    mine = {each.pid for each in _measurers()}
    killed = []

    def kill_one(event):
        if event.get("stage") == "read" and len(killed) == 0:
            [worker] = [each for each in _measurers() if each.pid not in mine]
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    there = sweep_on_ray(saved, units, Setup(), tmp_path / "there.db", address="local", workers=1, on_event=kill_one)
    assert killed and there.measured == len(units) == 6
    with Store(tmp_path / "here.db") as ours, Store(tmp_path / "there.db") as theirs:
        assert not theirs.interrupted()
        first, second = collect(ours, here.keys), collect(theirs, there.keys)
    assert [(row.key, row.scores) for row in first] == [(row.key, row.scores) for row in second]
