"""How far a backend may be from the float64 oracle. Widening an entry needs a line of reason.

Each is 5 to 10 times the largest error seen in the contract tests (bf16: twice).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """|left - right| <= atol + rtol |right|; the inputs of our tests are standard normal numbers."""

    atol: float
    rtol: float


TOLERANCES = {
    ("reference", torch.float64): Tolerance(1e-12, 1e-12),
    ("reference", torch.float32): Tolerance(1e-6, 1e-6),  # float64 inside, rounded once
    ("blockwise", torch.float64): Tolerance(2e-6, 2e-6),  # cos and sin are float32
    ("blockwise", torch.float32): Tolerance(5e-6, 5e-6),
    ("blockwise", torch.bfloat16): Tolerance(4e-2, 2e-2),  # rotated queries and keys are rounded to 8 bits
    ("compiled", torch.float32): Tolerance(5e-6, 5e-6),
    ("compiled", torch.bfloat16): Tolerance(4e-2, 2e-2),
    ("varlen", torch.float32): Tolerance(5e-6, 5e-6),  # over the emulator
    ("varlen", torch.bfloat16): Tolerance(4e-2, 2e-2),
    ("flex", torch.float32): Tolerance(5e-6, 5e-6),  # uncompiled
    ("triton", torch.float32): Tolerance(1e-6, 1e-6),  # by its interpreter
    ("triton", torch.float16): Tolerance(2e-3, 2e-3),
    ("triton", torch.bfloat16): Tolerance(4e-2, 2e-2),
    ("gradient", torch.float64): Tolerance(5e-6, 5e-6),  # of any backend; sums over the tokens of the above
    ("gradient", torch.float32): Tolerance(1e-5, 1e-5),
}


def assert_near(left: Tensor, right: Tensor, backend: str, dtype: torch.dtype) -> None:
    """Assert that a backend's result is within the tolerance of its dtype; infinities must agree."""
    atol, rtol = TOLERANCES[backend, dtype]
    torch.testing.assert_close(left.double(), right.double(), atol=atol, rtol=rtol)
