"""Two data-parallel processes give the weights of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

ROOT = Path(__file__).parents[2]


LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(module: str, *given: object, processes: int) -> None:
    """Run a module in one process, or in two over gloo."""
    command = [sys.executable, *(LAUNCH if processes == 2 else ()), "-m", module, *map(str, given)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_sharded_weights_are_those_of_one_process(tmp_path) -> None:
    """By torch's fully_shard; Accelerate leaves FSDP out on the CPU without a word."""
    for processes in (1, 2):
        start("tests.train.sharded", tmp_path / f"{processes}.safetensors", processes=processes)
    one, two = (safetensors.torch.load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    assert set(one) == set(two) and any("clex" in name for name in one)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_processes_over_gloo_give_the_weights_of_one(tmp_path) -> None:
    start("tests.train.parallel", tmp_path / "one", "4", processes=1)
    start("tests.train.parallel", tmp_path / "two", "2", processes=2)
    assert (tmp_path / "two" / "extension" / "ropewalk_config.json").is_file()
    for name in ("model.safetensors", "clex.safetensors"):
        one, two = (safetensors.torch.load_file(tmp_path / place / name) for place in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
