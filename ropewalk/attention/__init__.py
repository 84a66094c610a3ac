"""Attention under a plan: backends that carry it out, found by name in `BACKENDS`."""

from ropewalk.attention import (  # registers the backends
    blockwise,
    compiled,
    flash,
    flex,
    reference,
    triton_decode,
    varlen,
)
from ropewalk.attention.base import BACKENDS, Backend, Inputs, choose

__all__ = [
    "BACKENDS",
    "Backend",
    "Inputs",
    "blockwise",
    "choose",
    "compiled",
    "flash",
    "flex",
    "reference",
    "triton_decode",
    "varlen",
]
