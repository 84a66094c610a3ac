import os

import pytest

from ropewalk.evaluate.launch import threads_of_each


@pytest.mark.parametrize(("asked", "workers", "threads"), [("3", 2, 3), ("", 2, 4), ("0", 3, 2), ("many", 16, 1)])
def test_workers_share_the_cores_unless_their_threads_are_said(monkeypatch, asked, workers, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_of_each(workers) == threads
