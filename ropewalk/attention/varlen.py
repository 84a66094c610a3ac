"""Attention by torch's `varlen_attn` on CUDA: FlashAttention-2, or what torch was told to activate in its place.

The `varlen_attn` of torch 2.12 has what is wanted. That of 2.10 has no window and no `seqused_k`, and torch before has
none; there the operators that it hands over to are called (aten.py). What counts is the signature that is there.
"""

from typing import Any

import torch
from torch import Tensor

from ropewalk.attention.aten import Aten
from ropewalk.attention.base import BACKENDS
from ropewalk.attention.caller import Caller, absent
from ropewalk.attention.calls import Call
from ropewalk.attention.ragged import Ragged

WANTED = ("return_aux", "scale", "window_size", "enable_gqa", "seqused_k")
BACKWARD = ("grad_out", "query", "key", "value", "out", "lse", "rng_state", "scale", "window_size")


class TorchVarlen(Caller):
    """torch.nn.attention.varlen.

    Args:
        library: the module, or what has its functions; None: torch's own, imported when it is first asked for.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._heads_first: bool | None = None

    def missing(self, *, grad: bool) -> str | None:
        if self._library is None:
            lacking = self._find()
            if lacking is not None:
                return f"torch {torch.__version__}: {lacking}; torch 2.12 has what is wanted"
        lacking = absent(self._library, "varlen_attn", WANTED)
        if lacking is None and grad:
            lacking = absent(self._library, "_varlen_attn_backward", BACKWARD)
        return None if lacking is None else f"torch {torch.__version__}: {lacking}; torch 2.12 has what is wanted"

    def _find(self) -> str | None:
        """Take torch's module, or else its operators; what both lack, or None."""
        try:
            from torch.nn.attention import varlen
        except ImportError:
            lacking: str | None = "there is no varlen_attn"
        else:
            lacking = absent(varlen, "varlen_attn", WANTED)
            if lacking is None:
                self._library = varlen
                return None
        below = Aten()
        if below.lacking() is None:
            self._library = below
            return None
        return f"{lacking}, and {below.lacking()}"

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, call: Call, scaling: float, softcap: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = self._call(q, k, v, call, scaling)
        return out, lse if self._lse_is_heads_first(q) else lse.T

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        call: Call,
        starts_k: Tensor,
        scaling: float,
        softcap: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dq, dk, dv = self._library._varlen_attn_backward(
            grad,
            q,
            k,
            v,
            out,
            lse if self._lse_is_heads_first(q) else lse.T.contiguous(),
            call.starts_q,
            starts_k,
            call.longest_q,
            call.longest_k,
            call.window == (-1, 0),
            torch.zeros(2, dtype=torch.uint64, device=q.device),  # no dropout
            scale=scaling,
            window_size=list(call.window),
        )
        return dq, dk, dv

    def _call(self, q: Tensor, k: Tensor, v: Tensor, call: Call, scaling: float) -> tuple[Tensor, Tensor]:
        out, lse = self._library.varlen_attn(
            q,
            k,
            v,
            call.starts_q,
            call.starts_k,
            call.longest_q,
            call.longest_k,
            return_aux=self._library.AuxRequest(lse=True),
            scale=scaling,
            window_size=call.window,
            enable_gqa=True,
            seqused_k=call.used_k,
        )
        return out, lse

    def _lse_is_heads_first(self, like: Tensor) -> bool:
        """Whether the logsumexp is [heads, queries], found by one small call: torch 2.13 documents the contrary."""
        if self._heads_first is None:
            q, k = like.new_zeros(3, 1, 8), like.new_zeros(3, 1, 8)
            ends = torch.tensor([0, 3], dtype=torch.int32, device=like.device)
            probe = Call(ends, ends, ends[1:].clone(), longest_q=3, longest_k=3, window=(-1, -1), sees=None)
            self._heads_first = self._call(q, k, k, probe, 1.0)[1].shape == (1, 3)
        return self._heads_first


BACKENDS.register("varlen")(Ragged("varlen", TorchVarlen()))
BACKENDS.register("varlen-tail")(Ragged("varlen-tail", TorchVarlen(), at_once=True))
