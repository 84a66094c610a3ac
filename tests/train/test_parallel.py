"""Two data-parallel processes give the weights of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_over_gloo_give_the_weights_of_one(tmp_path) -> None:
    alone = [sys.executable, "-m", "tests.train.parallel", str(tmp_path / "one"), "4"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = [*launch, "-m", "tests.train.parallel", str(tmp_path / "two"), "2"]
    for command in (alone, pair):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)
        assert done.returncode == 0, done.stderr[-2000:]
    for name in ("model.safetensors", "clex.safetensors"):
        one, two = (safetensors.torch.load_file(tmp_path / place / name) for place in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
