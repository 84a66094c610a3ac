"""Attention computed from relative distances alone: no query or key is ever rotated to a position.

For one query row and one key column, with the rotary dimensions read as complex numbers q_i and k_i:

    logit = query_scale scaling ( a^2 sum_i Re(q_i conj(k_i) exp(1j theta_i p_i(m, n))) + plain )

plain is the dot product of the un-rotated dimensions. a (attention scaling) multiplies cos and sin of both sides,
hence a^2, and leaves un-rotated dimensions alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    inv_freq: Tensor | Sequence[float] | None,
    distance: Tensor,
    *,
    scaling: float,
    layout: str,
    visible: Tensor,
    rotary_start: int = 0,
    attention_scaling: float = 1.0,
    query_scale: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention in float64 from the effective distance of every (query, key), pair by pair.

    Args:    query: [B, H, T, D], un-rotated; head h reads key and value head h // (H / K).
             key, value: [B, K, S, D] and [B, K, S, Dv].
             inv_freq: [pairs], radians per token; None when the layer has no rotary part.
             distance: [H or 1, T, S, pairs or 1].
             layout: "half" pairs dimension i with i + pairs, "interleaved" pairs 2i with 2i + 1, counted from
             rotary_start; the rotary dimensions are rotary_start .. rotary_start + 2 pairs.
             visible: [B or 1, T, S] bool, True where the query may see the key.
             query_scale: [T], log-n scale of each query.
             softcap: c, logits become c tanh(logit / c). sinks: [H], one more logit, which has no value.
    Returns: output [B, H, T, Dv] and logsumexp [B, H, T] over the visible keys (a sink is not in it), both float64.
             A row that sees no key has output 0 and logsumexp -inf.
    """
    H, T, D = query.shape[1:]
    heads_per_kv = H // key.shape[1]
    q = query.double()
    k = key.double().repeat_interleave(heads_per_kv, dim=1)
    v = value.double().repeat_interleave(heads_per_kv, dim=1)

    logits = torch.zeros(*q.shape[:3], k.shape[2], dtype=torch.float64, device=q.device)  # [B, H, T, S]
    rotary_dims = set()
    if inv_freq is not None:
        theta = torch.as_tensor(inv_freq, dtype=torch.float64, device=q.device)
        pairs = theta.numel()
        p = distance.double().to(q.device).expand(H, T, k.shape[2], pairs)
        for i in range(pairs):
            first, second = {"half": (i, i + pairs), "interleaved": (2 * i, 2 * i + 1)}[layout]
            first, second = rotary_start + first, rotary_start + second
            rotary_dims |= {first, second}
            q_i = torch.complex(q[..., first], q[..., second])[:, :, :, None]  # [B, H, T, 1]
            k_i = torch.complex(k[..., first], k[..., second])[:, :, None, :]  # [B, H, 1, S]
            angle = theta[i] * p[..., i]  # [H, T, S]
            turn = torch.complex(torch.cos(angle), torch.sin(angle))
            logits += attention_scaling**2 * (q_i * k_i.conj() * turn).real
    plain_dims = [dim for dim in range(D) if dim not in rotary_dims]
    logits += torch.einsum("bhtd,bhsd->bhts", q[..., plain_dims], k[..., plain_dims])

    logits *= scaling
    if query_scale is not None:
        logits *= query_scale.double().view(1, 1, T, 1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.masked_fill(~visible[:, None], float("-inf"))

    logsumexp = torch.logsumexp(logits, dim=-1)  # [B, H, T]
    denominator = logsumexp
    if sinks is not None:
        denominator = torch.logaddexp(logsumexp, sinks.double().view(1, H, 1).expand_as(logsumexp))
    empty = ~visible.any(dim=-1)[:, None]  # [B, 1, T]
    weights = torch.exp(logits - denominator.masked_fill(empty, 0.0)[..., None])  # exp(-inf) = 0 all along an empty row
    return weights @ v, logsumexp
