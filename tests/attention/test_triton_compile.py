"""The Triton kernels compiled ahead of time for GPUs that need not be there: registers must not spill.

The compiler also refuses kernels that the interpreter takes. Arguments are what the launcher gives, on the CPU.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from ropewalk.attention.triton_decode import Chip, TritonDecode
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, make_inputs

triton = pytest.importorskip("triton", reason="triton is not installed; run: make triton")
pytestmark = pytest.mark.slow

SHARED = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448}  # bytes that a program may have, by architecture
SPILLED = 8  # bytes a thread at most


class Recorder:
    """Stands for a kernel and keeps what it was launched with."""

    def __getitem__(self, grid):
        return self._launch

    def _launch(self, *args, **options):
        self.args, self.options = args, options


def launches(monkeypatch, spec: RotarySpec, plan: Plan, shared: int, new: int):
    """Each kernel with its arguments and options in one step of decoding in bfloat16."""
    from ropewalk.attention import triton_kernel

    kernels = triton_kernel.decode, triton_kernel.merge
    recorders = Recorder(), Recorder()
    monkeypatch.setattr(triton_kernel, "decode", recorders[0])
    monkeypatch.setattr(triton_kernel, "merge", recorders[1])
    inputs = cast(make_inputs(spec, total=4096, new=new), torch.bfloat16)
    TritonDecode(Chip(132, shared)).attend(inputs, plan, spec, 0)
    return [(kernel, recorder.args, recorder.options) for kernel, recorder in zip(kernels, recorders, strict=True)]


def compiled(kernel, args, options, architecture: int):
    """What triton would compile for such a launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)
    options = {**options, "debug": False}
    bound, special, parsed = create_function_from_signature(kernel.signature, kernel.params, backend)(*args, **options)
    parsed, signature, constants, attributes = kernel._pack_args(backend, options, bound, special, parsed)
    return triton.compile(ASTSource(kernel, signature, constants, attributes), target=target, options=parsed.__dict__)


def usage(kernel, folder: Path) -> dict[str, int]:
    """Registers and bytes of stack of a thread, and bytes of local memory."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
    return {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", done.stdout)}


def masked(head_dim: int) -> tuple[RotarySpec, Plan]:
    spec = make_spec(head_dim=head_dim, num_heads=32, num_kv_heads=8, pretrained_length=8192, base=5e5)
    mask = np.random.default_rng(0).random((2, 32, head_dim // 2)) < 0.5
    return spec, DPE(window=1024, scales=(1.0, 8.0, 8.0, 16.0), mask=Grid(mask)).plan(spec, 32768)


def assert_fits(monkeypatch, folder: Path, spec: RotarySpec, plan: Plan, architecture: int, new: int = 1) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # the kernel sets it itself; unset, triton 3.9 warns
    shared = SHARED[architecture]
    for launch in launches(monkeypatch, spec, plan, shared, new):
        kernel = compiled(*launch, architecture)
        used = usage(kernel, folder)
        assert used["STACK"] + used["LOCAL"] <= SPILLED, used
        assert kernel.metadata.shared <= shared


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("architecture", SHARED)
def test_masks_per_head_spill_no_registers(monkeypatch, tmp_path, architecture, head_dim) -> None:
    assert_fits(monkeypatch, tmp_path, *masked(head_dim), architecture)


def test_several_new_tokens_spill_no_registers(monkeypatch, tmp_path) -> None:
    assert_fits(monkeypatch, tmp_path, *masked(128), 90, new=8)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_one_key_head_that_is_rotated_in_part_spills_no_registers(monkeypatch, tmp_path, layout) -> None:
    spec = make_spec(head_dim=96, rotary_dim=64, rotary_start=32, layout=layout, num_heads=9, num_kv_heads=1)
    plan = parse("self-extend:group=8,window=60").plan(spec, 4096)
    assert_fits(monkeypatch, tmp_path, spec, plan, 90)


def test_one_map_for_all_heads_spills_no_registers(monkeypatch, tmp_path) -> None:
    spec, _ = masked(128)
    assert_fits(monkeypatch, tmp_path, spec, parse("self-extend:group=8,window=1024").plan(spec, 32768), 90)
