"""Attention by the flash-attn package (FlashAttention-2) on CUDA, where it is installed; also soft-capped logits.

Its public varlen function has no `seqused_k`, and without it every band would copy its keys; so it is called one floor
below, by what that function itself calls. Wanted: flash-attn 2.7 or later, or what has these arguments.
"""

from typing import Any

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS
from ropewalk.attention.caller import Caller, absent
from ropewalk.attention.calls import Call
from ropewalk.attention.ragged import Ragged
from ropewalk.errors import BackendError

FORWARD = ("softmax_scale", "causal", "window_size_left", "window_size_right", "softcap", "seqused_k")
BACKWARD = ("dout", "softmax_lse", "dq", "dk", "dv", "window_size_left", "window_size_right", "softcap")


class FlashAttention(Caller):
    """flash_attn.flash_attn_interface.

    Args:
        library: the module, or what has its functions; None: the installed one, imported when it is first asked for.
    """

    softcaps = True

    def __init__(self, library: Any = None) -> None:
        self._library = library

    def missing(self, *, grad: bool) -> str | None:
        if self._library is None:
            try:
                from flash_attn import flash_attn_interface
            except ImportError as error:
                return f"the flash-attn package cannot be imported ({error})"
            self._library = flash_attn_interface
        lacking = absent(self._library, "_flash_attn_varlen_forward", FORWARD)
        if lacking is None and grad:
            lacking = absent(self._library, "_flash_attn_varlen_backward", BACKWARD)
        return None if lacking is None else f"flash-attn: {lacking}; flash-attn 2.7 has what is wanted"

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, call: Call, scaling: float, softcap: float
    ) -> tuple[Tensor, Tensor]:
        found = self._library._flash_attn_varlen_forward(
            q,
            k,
            v,
            call.starts_q,
            call.starts_k,
            call.longest_q,
            call.longest_k,
            dropout_p=0.0,
            alibi_slopes=None,
            return_softmax=False,
            seqused_k=call.used_k,
            **_common(call, scaling, softcap),
        )
        if len(found) != 4:
            raise BackendError(
                f"flash-attn returned {len(found)} results, wanted the 4 of flash-attn 2.7 or later; update it or take "
                "another backend"
            )
        return found[0], found[1]

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
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        self._library._flash_attn_varlen_backward(
            grad,
            q,
            k,
            v,
            out,
            lse,
            dq,
            dk,
            dv,
            call.starts_q,
            starts_k,
            call.longest_q,
            call.longest_k,
            dropout_p=0.0,
            alibi_slopes=None,
            deterministic=False,
            **_common(call, scaling, softcap),
        )
        return dq, dk, dv


def _common(call: Call, scaling: float, softcap: float) -> dict[str, Any]:
    return {
        "softmax_scale": scaling,
        "causal": call.window[1] == 0,
        "window_size_left": call.window[0],
        "window_size_right": call.window[1],
        "softcap": softcap,
    }


BACKENDS.register("flash")(Ragged("flash", FlashAttention()))
BACKENDS.register("flash-tail")(Ragged("flash-tail", FlashAttention(), at_once=True))
