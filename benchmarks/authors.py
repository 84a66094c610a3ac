"""A decode step of DPE with the data flow of its authors' code, written anew: what there is to save.

Read in LuLuLuyi/DPE, dpe_for_llama.py: the cache holds un-rotated keys. Every step builds cos and sin of every position
at full width for each of the eight groups and keeps an eighth of each, rotates all keys, copies keys and values to be
contiguous, attends twice (window, rest) and merges by log-sum-exp. We take torch's CPU kernel where they call
flash-attn, and tables of float32 angles where theirs are of the model's dtype throughout.
"""

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import rotate_half

from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

GROUPS = 8


def authors_decode(query: Tensor, key: Tensor, value: Tensor, plan: Plan, spec: RotarySpec) -> Tensor:
    """Attention of one new query [1, H, 1, D] over un-rotated keys and values [1, K, n, D]."""
    remote = plan.bands[1]
    window, n = remote.region.lo, key.shape[2]
    inv_freq = torch.tensor(spec.inv_freq, dtype=torch.float32)
    positions = torch.arange(n, dtype=torch.float32)
    scales = torch.tensor(remote.key.scale.layer(0)[0], dtype=torch.float32)
    per_group = scales.reshape(GROUPS, -1)[:, 0]
    shared = spec.pairs // GROUPS
    remote_tables, query_tables = [], []
    for group, scale in enumerate(per_group):
        pairs = slice(group * shared, (group + 1) * shared)
        for found, at in (
            (remote_tables, positions // scale),
            (query_tables, positions[-1:] // scale + window - window // scale),
        ):
            angles = at[:, None] * inv_freq
            found.append((angles.cos()[:, pairs].to(key.dtype), angles.sin()[:, pairs].to(key.dtype)))
    angles = positions[:, None] * inv_freq
    plain = angles.cos().to(key.dtype), angles.sin().to(key.dtype)

    near_key = _turn(key, plain)
    far_key = _turn(key, _joined(remote_tables))
    far_query = _turn(query, _joined(query_tables))
    near_query = _turn(query, (plain[0][-1:], plain[1][-1:]))
    rows = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (near_key, far_key, value)]
    pieces = [
        _attend(near_query, rows[0][:, :, max(0, n - window) :], rows[2][:, :, max(0, n - window) :]),
        _attend(far_query, rows[1][:, :, : n - window], rows[2][:, :, : n - window]),
    ]
    weights = torch.softmax(torch.stack([lse for _, lse in pieces]), 0)[..., None]
    return (torch.stack([out.float() for out, _ in pieces]) * weights).sum(0).to(query.dtype)


def _joined(tables: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([cos for cos, _ in tables], -1), torch.cat([sin for _, sin in tables], -1)


def _turn(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (torch.cat((t, t), -1) for t in tables)
    return x * cos + rotate_half(x) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(query, key, value, 0.0, False, scale=query.shape[-1] ** -0.5)
    return out, lse
