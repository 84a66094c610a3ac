"""The Triton backend: what it refuses, its equality with the reference in the interpreter and on a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ropewalk.attention import BACKENDS
from ropewalk.attention.stepped import TILE
from ropewalk.attention.triton_decode import Chip, TritonDecode
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Band, Plan, PositionMap, Region
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, like, make_inputs
from tests.tolerances import assert_near

ROOT = Path(__file__).parents[2]
INTERPRETED = "tests/attention/interpreted_triton.py"
SPEC = make_spec()
HERE = {"device": torch.device("cuda"), "dtype": torch.bfloat16, "grad": False}

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; run: make triton")


@pytest.mark.slow  # 20 seconds of one processor
@needs_triton
def test_the_kernel_is_the_reference_in_the_interpreter() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", INTERPRETED]
    environment = own | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": torch.device("cpu")}, "it runs on CUDA, not on 'cpu'"),
        ({"dtype": torch.float32}, "it computes in float16 and bfloat16, not in float32"),
        ({"grad": True}, "it has no gradients"),
        ({}, "query heads that share a key turn it alike, and other kernels read it rotated"),
    ],
)
def test_what_it_does_not_run_on_is_named(change, reason) -> None:
    plan = parse("self-extend").plan(SPEC, 256)
    assert TritonDecode().unsupported(plan, **(HERE | change)) == reason


def test_other_makers_gpus_are_named(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert TritonDecode().unsupported(parse("dpe").plan(SPEC, 256), **HERE) == "it is made for NVIDIA's GPUs"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_plans_and_chips_that_it_does_not_run_are_named(monkeypatch, capability) -> None:
    monkeypatch.setattr("ropewalk.attention.triton_decode._is_there", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    halves, thirds = Grid([[1.0], [2.0], [1.0], [1.0]]), Grid([[1.0], [2.0], [3.0], [1.0]])
    one, three, all_heads = PositionMap(halves), PositionMap(thirds), PositionMap(Grid(2.0))
    turned = PositionMap(Grid(halves.array[:, ::-1]))
    expected = {
        (one, one): None,
        (three, three): "a rotary pair has more than two scales or offsets over heads",
        (all_heads, one): "query heads differ in the positions of queries or of keys, but not of both",
        (one, turned): "queries and keys differ in where query heads differ",
        (one, PositionMap(halves, modulus=7)): "positions start anew",
    }
    backend = TritonDecode()
    for (query, key), reason in expected.items():
        plan = Plan((Band(Region(0, 9)), Band(Region(9), query, key)), SPEC.table)
        old = "it wants compute capability 8.0 or later, not 7.5" if capability == (7, 5) else reason
        assert backend.unsupported(plan, **HERE) == old
    encoder = Plan((Band(), Band(Region(side="future"), one, one)), SPEC.table)
    assert capability == (7, 5) or backend.unsupported(encoder, **HERE) == "tokens see later ones"


def test_inputs_that_it_does_not_take_are_named() -> None:
    backend, inputs = TritonDecode(), make_inputs(SPEC, total=40, new=17)
    assert backend.refuses(inputs) == "34 queries share a key head, more than 32: it is for decoding"
    inputs = like(inputs, query=inputs.query[:, :, -16:])
    assert backend.refuses(inputs) is None
    assert backend.refuses(like(inputs, positions=torch.arange(40) * 2)) == "there are gaps between positions"
    assert backend.refuses(like(inputs, softcap=3.0)) == "it caps no logits"
    wide = make_inputs(SPEC, total=9, new=1, width=136)
    assert backend.refuses(wide) == "heads have 136 columns, more than 128"


@pytest.mark.parametrize("total", [1, TILE, 1000, 131_072])
@pytest.mark.parametrize("heads", [1, 8, 300])
def test_splits_hold_every_tile_once_and_none_is_empty(total, heads) -> None:
    splits, tiles = Chip(132, 2**18).splits(heads, total, 8)
    every = -(-total // TILE)
    assert (splits - 1) * tiles < every <= splits * tiles
    assert splits == 1 or splits * heads <= 132


def test_less_shared_memory_reads_less_far_ahead() -> None:
    assert (Chip(132, 232_448).stages, Chip(128, 101_376).stages) == (4, 3)


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "float16"])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("new", [1, 4])
def test_the_kernel_is_the_reference_on_a_gpu(new, head_dim, dtype) -> None:
    spec = make_spec(head_dim=head_dim, num_heads=32, num_kv_heads=8, pretrained_length=8192)
    mask = np.random.default_rng(0).random((2, 32, head_dim // 2)) < 0.5
    masked = DPE(window=1024, scales=(1.0, 1.0, 7.5, 16.0), mask=Grid(mask)).plan(spec, 32768)
    inputs = cast(make_inputs(spec, total=5003, new=new, batch=2), dtype)
    on_gpu = like(inputs, **{name: getattr(inputs, name).cuda() for name in ("query", "key", "value")})
    for plan in (masked, parse("self-extend:group=8,window=1024").plan(spec, 32768)):
        ours = TritonDecode().attend(on_gpu, plan, spec, 1)
        theirs = BACKENDS.get("reference").attend(cast(inputs, torch.float64), plan, spec, 1)
        for left, right in zip(ours, theirs, strict=True):
            assert_near(left.cpu(), right, "triton", dtype)
