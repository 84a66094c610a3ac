"""torch's FlashAttention one floor below `varlen_attn`, with its face, for a torch whose `varlen_attn` lacks arguments.

`varlen_attn` hands its arguments on to `aten::_flash_attention_forward`, which had a window, `seqused_k` and grouped
heads before it did. The operators are not public; what counts is that their schema has what is wanted.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

FORWARD = ("scale", "window_size_left", "window_size_right", "seqused_k")
BACKWARD = ("rng_state", "unused", "scale", "window_size_left", "window_size_right")


class Request(NamedTuple):
    """torch's AuxRequest."""

    lse: bool = False


class Aten:
    """`varlen_attn` and its backward pass over the operators.

    Args:
        operators: torch.ops.aten, or what has its two functions.
    """

    AuxRequest = Request

    def __init__(self, operators: Any = None) -> None:
        self._aten = torch.ops.aten if operators is None else operators

    def lacking(self) -> str | None:
        """What the operators do not have, or None."""
        for name, wanted in (("_flash_attention_forward", FORWARD), ("_flash_attention_backward", BACKWARD)):
            operator = getattr(self._aten, name, None)
            if operator is None:
                return f"there is no {name}"
            known = {argument.name for argument in operator.default._schema.arguments}
            missing = [argument for argument in wanted if argument not in known]
            if missing:
                return f"{name} has no {', '.join(missing)}"
        return None

    def varlen_attn(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        return_aux: Request,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
        seqused_k: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Output [Q, G, D] and logsumexp; the operator shares key heads unasked."""
        assert return_aux.lse and enable_gqa
        out, lse, *_ = self._aten._flash_attention_forward(
            query,
            key,
            value,
            cu_seq_q,
            cu_seq_k,
            max_q,
            max_k,
            0.0,
            window_size == (-1, 0),
            False,
            scale=scale,
            window_size_left=window_size[0],
            window_size_right=window_size[1],
            seqused_k=seqused_k,
        )
        return out, lse

    def _varlen_attn_backward(
        self,
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        is_causal: bool,
        rng_state: Tensor,
        scale: float,
        window_size: list[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        dq, dk, dv = self._aten._flash_attention_backward(
            grad_out,
            query,
            key,
            value,
            out,
            lse,
            cu_seq_q,
            cu_seq_k,
            max_q,
            max_k,
            0.0,
            is_causal,
            rng_state,
            torch.empty(0, device=query.device),
            scale=scale,
            window_size_left=window_size[0],
            window_size_right=window_size[1],
        )
        return dq, dk, dv
