"""Attention under a plan: backends that carry it out, found by name in `BACKENDS`."""

from ropewalk.attention import blockwise, compiled, flash, flex, reference, varlen  # registers the backends
from ropewalk.attention.base import BACKENDS, Backend, Inputs, choose

__all__ = ["BACKENDS", "Backend", "Inputs", "blockwise", "choose", "compiled", "flash", "flex", "reference", "varlen"]
