"""A sweep that is killed again and again ends with the scores of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from ropewalk.evaluate.launch import launch
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import collect
from ropewalk.evaluate.unit import Setup, list_units

KILLS = 10


@pytest.mark.slow
def test_sweep_killed_ten_times_scores_as_an_unbroken_one(model, tokenizer, tmp_path):
    source = tmp_path / "model"
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    methods, lengths = ["none", "yarn", "self-extend"], [600, 1024]
    units = list_units(["perplexity", "needle"], methods, lengths, samples=12, seeds=[3])
    unbroken = launch(str(source), units, Setup(), tmp_path / "unbroken.db", workers=2)
    assert unbroken.measured == len(units) == 144

    killed = tmp_path / "killed.db"
    command = [sys.executable, "-m", "ropewalk", "eval", "perplexity", "needle", "--model", str(source)]
    command += [word for method in methods for word in ("--method", method)]
    command += ["--lengths", "600,1024", "--samples", "12", "--seeds", "3", "--workers", "2", "--no-controls"]
    command += ["--store", str(killed)]
    rng = random.Random(0)
    counts = []
    for _ in range(KILLS):
        before = _stored(killed)
        process = subprocess.Popen(
            command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        # Loading takes seconds; each run is let to store a few samples, and is killed at a random moment after that.
        wanted = before + rng.randrange(1, 8)
        while _stored(killed) < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        assert process.poll() is None, "it must be killed before it is done"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(_stored(killed))
    assert counts == sorted(counts) and 0 < counts[-1] < len(units)
    subprocess.run(command, check=True, capture_output=True)

    with Store(tmp_path / "unbroken.db") as ours, Store(killed) as theirs:
        first = collect(ours, unbroken.keys)
        second = collect(theirs, unbroken.keys)
        assert len(theirs.rows()) == len(units) and not theirs.interrupted()
    for a, b in zip(first, second, strict=True):
        assert (a.key, a.scores, a.n, a.prompt_sha256) == (b.key, b.scores, b.n, b.prompt_sha256)


def _stored(path):
    if not path.exists():
        return 0
    with Store(path) as store:
        return len(store.rows())
