"""Attention by torch's FlexAttention on CUDA: any plan, padding, gaps between positions, soft caps, and training.

One block-masked call for each band, with its logsumexp; autograd goes through their merge. What no query of a block
sees is skipped, what all see is not masked. The first calls compile, which takes seconds. Wanted: `return_aux`, which
torch has since 2.9. A CPU is refused: what torch compiles there returns no logsumexp and has no gradients.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.attention.intervals import FAR, interval
from ropewalk.attention.merge import merge
from ropewalk.attention.pieces import one_sided
from ropewalk.attention.tables import Tables
from ropewalk.attention.turning import turned
from ropewalk.plan import Plan, Region
from ropewalk.rotary import RotarySpec

BLOCK = 128  # queries and keys that are skipped, masked or left unmasked together
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KEPT = 4  # masks; all layers of a step share one for each band, which are three at most of most methods


@dataclass(frozen=True)
class Mask:
    """A region over the queries and keys of a call.

    Attributes:
        blocks: torch's BlockMask.
        sees: whether a query sees a key, bool [B or 1, 1, T].
    """

    blocks: Any
    sees: Tensor


class Flex(Backend):
    """FlexAttention, compiled at its first call.

    Args:
        device: type of device that it runs on.
        attention: takes flex_attention's arguments; None: torch's own, compiled.
    """

    name = "flex"
    tables: Tables
    ragged = True

    def __init__(self, device: str = "cuda", attention: Callable[..., Any] | None = None) -> None:
        self.tables = Tables()
        self._device = device
        self._attention = attention

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        if device.type != self._device:
            why = "; on a CPU torch returns no logsumexp of it" if device.type == "cpu" else ""
            return f"it runs on {self._device.upper()}, not on {device.type!r}{why}"
        if dtype not in DTYPES:
            return f"it computes in float16, bfloat16 and float32, not in {str(dtype).removeprefix('torch.')}"
        from torch.nn.attention import flex_attention

        if "return_aux" not in inspect.signature(flex_attention.flex_attention).parameters:
            return f"torch {torch.__version__}: flex_attention has no return_aux; torch 2.9 has it"
        return None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        from torch.nn.attention.flex_attention import AuxRequest

        attention = self._attention = self._attention or compiled()
        queries, keys = turned(inputs, plan, spec, layer, self.tables)
        value = inputs.value.to(inputs.query.dtype)
        found = []
        for band, region in one_sided(plan):
            q, k = queries[band.query], keys[band.key]
            mask = _mask_for(region, inputs, k.shape[2])
            if mask is None:
                continue
            v = value[:, :, -k.shape[2] :]
            v = v if v.shape[1] == k.shape[1] else v.repeat_interleave(k.shape[1] // v.shape[1], 1)
            output, aux = attention(
                q,
                k,
                v,
                score_mod=None if inputs.softcap is None else softcapped(inputs.softcap),
                block_mask=mask.blocks,
                scale=inputs.scaling * plan.logit_scale,
                enable_gqa=True,
                return_aux=AuxRequest(lse=True),
            )
            found.append((output, aux.lse, mask.sees))
        if not found:
            shape = (*inputs.query.shape[:3], value.shape[3])
            return value.new_zeros(shape), value.new_full(shape[:3], -torch.inf, dtype=torch.float32)
        output, lse = merge(found)
        if inputs.sinks is not None:
            output = output * torch.sigmoid(lse - inputs.sinks.float()[:, None])[..., None]
        return output.to(inputs.query.dtype), lse


def compiled(**options: Any) -> Callable[..., Any]:
    """torch's flex_attention compiled, with options of torch.compile.

    For any length from the start: lengths that are compiled for one by one soon reach torch's limit, beyond which it
    would run uncompiled, all scores in memory.
    """
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True, fullgraph=True, **options)


def softcapped(cap: float) -> Callable[..., Tensor]:
    """FlexAttention's score_mod of soft-capped logits."""

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return score_mod


def _mask_for(region: Region, inputs: Inputs, held: int) -> Mask | None:
    new, total, device = inputs.query.shape[2], inputs.key.shape[2], inputs.key.device
    if inputs.positions is None:
        return _kept(region, inputs.rows or ((0, total),), new, total, held, device)
    return mask_of(region, inputs.positions[None], new, held)


@lru_cache(maxsize=KEPT)
def _kept(
    region: Region, rows: tuple[tuple[int, int], ...], new: int, total: int, held: int, device: torch.device
) -> Mask | None:
    first, last = torch.tensor(rows, device=device).T[..., None]
    slots = torch.arange(total, device=device)
    positions = torch.where(slots < last, slots - first, FAR).clamp(min=-1)
    return mask_of(region, positions, new, held)


def mask_of(region: Region, positions: Tensor, new: int, held: int) -> Mask | None:
    """The mask of a region, or None where no query sees a key.

    Args:
        positions: of all keys, int64 [B or 1, S], ascending; -1 for padding before a row and `FAR` for what is behind.
        new: queries, the last T.
        held: keys that are given, the last ones.
    """
    from torch.nn.attention.flex_attention import BlockMask

    m, n = positions[:, -new:].contiguous(), positions[:, -held:].contiguous()
    first, last = interval(region, m)
    first, last = first.clamp(min=0), last.clamp(max=FAR - 1).masked_fill((m < 0) | (m == FAR), -1)
    behind = torch.searchsorted(n, last, right=True)
    sees = (behind > 0) & (n.gather(1, (behind - 1).clamp(min=0)) >= first)
    if not sees.any():
        return None
    first, last = first.masked_fill(~sees, FAR), last.masked_fill(~sees, -1)

    # Of a block: the least and the largest of what its queries see, and of the positions that its keys have.
    least, most = _ends(first, FAR), _ends(last, -1)
    keys, real = _ends(n, FAR), (_ends(n.masked_fill(n < 0, FAR), FAR)[0], _ends(n.masked_fill(n == FAR, -1), -1)[1])
    some = (real[1][:, None] >= least[0][..., None]) & (real[0][:, None] <= most[1][..., None])
    every = (keys[0][:, None] >= least[1][..., None]) & (keys[1][:, None] <= most[0][..., None])

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = batch if len(n) > 1 else 0
        return (n[row, key] >= first[row, query]) & (n[row, key] <= last[row, query])

    blocks = BlockMask.from_kv_blocks(
        *_listed(some & ~every), *_listed(every), BLOCK_SIZE=BLOCK, mask_mod=mask_mod, seq_lengths=(new, held)
    )
    return Mask(blocks, sees[:, None])


def _ends(x: Tensor, behind: int) -> tuple[Tensor, Tensor]:
    """The least and the largest number of every block of [B, N], with `behind` in what the last one lacks."""
    blocks = pad(x, (0, -x.shape[1] % BLOCK), value=behind).unflatten(1, (-1, BLOCK))
    return blocks.amin(-1), blocks.amax(-1)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys every block of queries has, [B, 1, Q], and which, first to last, [B, 1, Q, K]; int32."""
    order = blocks.int().argsort(stable=True, dim=-1, descending=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], order.int()[:, None]


BACKENDS.register("flex")(Flex())
