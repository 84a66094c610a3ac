"""Attention in blocks of queries, with torch alone: any plan, memory linear in the length, CPU and GPU.

Where torch has a fused CPU kernel that returns the logsumexp, each block is cut into pieces that the kernel can do
without a mask: rectangles that every query sees, and triangles at the edges of a band. A band's upper edge is the
kernel's own causal triangle; its lower edge is one after queries and keys are flipped. Elsewhere (gradients, GPU,
soft-capped logits, positions with gaps) each block is one dense softmax over all bands.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ropewalk.attention.base import BACKENDS, Backend, Inputs
from ropewalk.attention.merge import Merger
from ropewalk.attention.pieces import Piece, blocks, one_sided, pieces
from ropewalk.attention.tables import Tables
from ropewalk.plan import Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec, rotate

BLOCK = 1024  # queries per block of the fused path; with a window of 1,024, 512 does as well and 2,048 needs masks
SMALLEST = 128  # queries per block below which calls cost more than masks
DENSE_NUMBERS = 2**26  # logits held at once by the dense path, 256 MiB in float32


def block_size(plan: Plan) -> int:
    """Queries per block: no more than the narrowest band is wide, so that its edges need no mask."""
    widths = [b.region.hi - b.region.lo for b in plan.bands if b.region.hi is not None and b.region.chunk == 1]
    return max(min([BLOCK, *widths]), min(BLOCK, SMALLEST))


class Blockwise(Backend):
    """Blocks of queries; fused pieces where the CPU kernel can, one dense softmax per block elsewhere."""

    name = "blockwise"
    tables: Tables

    def __init__(self) -> None:
        self.tables = Tables()

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        return None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        if _fused(inputs):
            output, lse = self._attend_fused(inputs, plan, spec, layer)
        else:
            output, lse = self._attend_dense(inputs, plan, spec, layer)
        if inputs.sinks is not None:
            output = output * torch.sigmoid(lse - inputs.sinks.float()[:, None])[..., None]
        return output.to(inputs.query.dtype), lse

    def _turn(self, x: Tensor, inputs: Inputs, plan: Plan, to: PositionMap, spec: RotarySpec, layer: int) -> Tensor:
        """Rotate keys [B, K, S, D], or queries [B, H, T, D] (the last T positions), by a position map."""
        total = inputs.key.shape[2]
        first = total - x.shape[2]
        positions: Tensor | range = range(first, total)
        if inputs.positions is not None:
            positions = inputs.positions[first:]
        cos, sin = self.tables.get(to, plan, layer, positions, x.device)
        if to.per_head and x.shape[1] != inputs.query.shape[1]:
            x = x.repeat_interleave(inputs.query.shape[1] // x.shape[1], 1)
        return rotate(x, cos, sin, spec)

    def _rotated_keys(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> Mapping[PositionMap, Tensor]:
        """The last keys under every key map: those that came rotated, or all of them rotated now."""
        if inputs.rotated is not None:
            return inputs.rotated
        maps = dict.fromkeys(band.key for band in plan.bands)
        return {to: self._turn(inputs.key, inputs, plan, to, spec, layer) for to in maps}

    def _scaled_query(self, inputs: Inputs, plan: Plan) -> Tensor:
        scale = plan.query_scale(inputs.key_positions()[-inputs.query.shape[2] :])
        return inputs.query if scale is None else inputs.query * scale.to(inputs.query.dtype)[:, None]

    def _attend_fused(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        batch, heads, new, width = inputs.query.shape
        total = inputs.key.shape[2]
        value_width = inputs.value.shape[3]
        query = self._scaled_query(inputs, plan)
        value = inputs.value
        if value_width != width:  # the kernel wants one width
            value = torch.nn.functional.pad(value, (0, width - value_width))
        keys = self._rotated_keys(inputs, plan, spec, layer)
        queries = {band.query: self._turn(query, inputs, plan, band.query, spec, layer) for band in plan.bands}
        scaling = inputs.scaling * plan.logit_scale

        output = inputs.query.new_empty(batch, heads, new, value_width)
        lse = torch.empty(batch, heads, new, dtype=torch.float32)
        past = total - new
        for start, stop in blocks(plan, past, total, block_size(plan)):
            merger = Merger((batch, heads, stop - start, value_width), query.device)
            for band, region in one_sided(plan):
                for piece in pieces(region, start, stop, total):
                    q = queries[band.query][:, :, piece.start - past : piece.stop - past]
                    k, v = _tokens(keys[band.key], piece, total), value[:, :, piece.first : piece.last]
                    if k.shape[1] != v.shape[1]:  # keys of their own for every query head
                        v = v.repeat_interleave(k.shape[1] // v.shape[1], 1)
                    out, piece_lse = _attend_piece(q, k, v, piece, region, scaling)
                    merger.add(out[..., :value_width], piece_lse, slice(piece.start - start, piece.stop - start))
            rows = slice(start - past, stop - past)
            output[:, :, rows], lse[:, :, rows] = merger.output, merger.lse
        return output, lse

    def _attend_dense(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        batch, heads, new = inputs.query.shape[:3]
        n = inputs.key_positions()
        m = n[-new:]
        wide = torch.promote_types(inputs.query.dtype, torch.float32)
        query = self._scaled_query(inputs, plan)
        repeats = heads // inputs.key.shape[1]
        value = inputs.value.repeat_interleave(repeats, 1).to(wide)
        turned = []
        keys = self._rotated_keys(inputs, plan, spec, layer)
        for band in plan.bands:
            key = keys[band.key]
            key = key.repeat_interleave(heads // key.shape[1], 1)
            turned.append((band.region, self._turn(query, inputs, plan, band.query, spec, layer), key))
        outputs, lses = [], []
        step = max(1, DENSE_NUMBERS // (batch * heads * len(n)))
        for a in range(0, new, step):
            rows = slice(a, min(a + step, new))
            logits: Tensor | None = None
            seen = torch.zeros(1, dtype=torch.bool, device=n.device)
            for region, q, key in turned:
                scores = (q[:, :, rows] @ key.mT).to(wide) * (inputs.scaling * plan.logit_scale)
                scores = torch.nn.functional.pad(scores, (len(n) - key.shape[2], 0))  # keys that no query sees there
                inside = region.contains(m[rows, None], n[None, :])
                seen = seen | inside
                logits = scores if logits is None else torch.where(inside, scores, logits)
            assert logits is not None
            if inputs.softcap is not None:
                logits = inputs.softcap * torch.tanh(logits / inputs.softcap)
            logits = logits.masked_fill(~seen, -torch.inf)
            lses.append(logits.logsumexp(-1))
            outputs.append(logits.softmax(-1) @ value)
        return torch.cat(outputs, 2), torch.cat(lses, 2)


def _fused(inputs: Inputs) -> bool:
    query, value = inputs.query, inputs.value
    return (
        query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and value.shape[3] <= query.shape[3]
        and inputs.positions is None
        and inputs.softcap is None
        and not inputs.needs_grad
    )


def _tokens(keys: Tensor, piece: Piece, total: int) -> Tensor:
    """The keys of a piece among the last n of `total`."""
    skipped = total - keys.shape[2]
    assert piece.first >= skipped, "a band sees keys that were not held"
    return keys[:, :, piece.first - skipped : piece.last - skipped]


def _attend_piece(
    q: Tensor, k: Tensor, v: Tensor, piece: Piece, region: Region, scaling: float
) -> tuple[Tensor, Tensor]:
    """Output and natural logsumexp of one piece by torch's fused CPU kernel (causal means top-left aligned there)."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if piece.shape == "upper":
        out, lse = kernel(q.flip(2), k.flip(2), v.flip(2), 0.0, True, scale=scaling)
        return out.flip(2), lse.flip(2)
    mask = None
    if piece.shape == "masked":
        m = torch.arange(piece.start, piece.stop)[:, None]
        inside = region.contains(m, torch.arange(piece.first, piece.last)[None, :])
        mask = torch.zeros(inside.shape, dtype=q.dtype).masked_fill(~inside, -torch.inf)
    out, lse = kernel(q, k, v, 0.0, piece.shape == "lower", attn_mask=mask, scale=scaling)
    return out, lse


BACKENDS.register("blockwise")(Blockwise())
