import os
import signal

import psutil
import pytest

from ropewalk.evaluate.launch import launch, threads_of_each
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from ropewalk.evaluate.unit import Setup, list_units


@pytest.mark.parametrize(("asked", "workers", "threads"), [("3", 2, 3), ("", 2, 4), ("0", 3, 2), ("many", 16, 1)])
def test_workers_share_the_cores_unless_their_threads_are_said(monkeypatch, asked, workers, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_of_each(workers) == threads


@pytest.mark.slow
def test_worker_that_dies_loses_only_its_sample_which_is_tried_again(model, tokenizer, tmp_path):
    source = str(tmp_path / "model")
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    units = list_units(["perplexity"], ["none", "self-extend"], [600], samples=3, seeds=[0])
    whole = launch(source, units, Setup(), tmp_path / "whole.db", workers=1)
    killed = []

    def kill_one(event):
        if event.get("stage") == "read" and not killed:
            [worker] = [each for each in psutil.Process().children() if "ropewalk.execution" in each.cmdline()]
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

    broken = launch(source, units, Setup(), tmp_path / "broken.db", workers=1, on_event=kill_one)
    assert len(killed) == 1 and broken.keys == whole.keys
    with Store(tmp_path / "whole.db") as ours, Store(tmp_path / "broken.db") as theirs:
        assert not theirs.interrupted()
        first, second = collect(ours, whole.keys), collect(theirs, broken.keys)
    assert [(row.key, row.scores) for row in first] == [(row.key, row.scores) for row in second]
