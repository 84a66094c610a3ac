"""Gradients through merged bands, in memory linear in the length.

A band's part of the weights is P = exp(logit - lse) with the merged logsumexp, and the gradient of a logit is
P (dP - D), D the dot product of the merged output with its gradient (FlashAttention-2, arXiv 2307.08691, section 3.1).
So a stock backward kernel that is given the queries and keys of a band with the *merged* output and logsumexp returns
the band's share of the gradients, exactly. To merge with weights that are held constant, as the training code of
ChunkLlama does, puts gradients of queries and keys 5 to 15 % off.

Kept for the backward pass are the un-rotated inputs, the output and the logsumexp; rotation is done again.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ropewalk.attention.turning import Turned

Turn = Callable[[Tensor, Tensor], tuple[Turned, Turned]]  # from un-rotated queries and keys


class Kernel(Protocol):
    """Attention over rotated queries and keys, forward and backward."""

    def attend(self, queries: Turned, keys: Turned, value: Tensor) -> tuple[Tensor, Tensor]:
        """Output [B, H, T, V] in the dtype of the value, and natural logsumexp, float32 [B, H, T]."""

    def gradients(
        self,
        queries: Turned,
        keys: Turned,
        value: Tensor,
        *,
        output: Tensor,
        lse: Tensor,
        grad_output: Tensor,
        grad_lse: Tensor | None,
    ) -> tuple[Turned, Turned, Tensor]:
        """Gradients of queries and keys under each map, and of the value, in their shapes; float32."""


def attend(kernel: Kernel, turn: Turn, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Output and logsumexp of a kernel, differentiable in query, key and value (once).

    Args:
        turn: rotates by every map, differentiable by autograd; keys that do not depend on `key` are constants.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        output, lse = _Bands.apply(kernel, turn, query, key, value)
        return output, lse
    return kernel.attend(*turn(query, key), value)


class _Bands(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, turn: Turn, query: Tensor, key: Tensor, value: Tensor) -> Any:
        output, lse = kernel.attend(*turn(query.detach(), key.detach()), value)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.kernel, ctx.turn = kernel, turn
        ctx.set_materialize_grads(False)
        return output, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None) -> Any:
        query, key, value, output, lse = ctx.saved_tensors
        leaves = [x.detach().requires_grad_() for x in (query, key)]
        with torch.enable_grad():
            turned = ctx.turn(*leaves)
        *grads, grad_value = ctx.kernel.gradients(
            *({to: x.detach() for to, x in some.items()} for some in turned),
            value,
            output=output,
            lse=lse,
            grad_output=torch.zeros_like(output) if grad_output is None else grad_output,
            grad_lse=grad_lse,
        )
        made = [
            (x, given[to].to(x.dtype))
            for some, given in zip(turned, grads, strict=True)
            for to, x in some.items()
            if x.requires_grad
        ]
        outputs, found = zip(*made, strict=True)
        grad_query, grad_key = torch.autograd.grad(outputs, leaves, found, allow_unused=True)
        return None, None, grad_query, grad_key, grad_value.to(value.dtype)
