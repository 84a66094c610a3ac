"""Attention by torch's fused CPU kernel, forward and backward, in pieces that it can do without a mask.

A band's upper edge is the kernel's own causal triangle; its lower edge is one after queries and keys are flipped. Every
row of a piece sees a key, so what the kernel says of rows that see none (logsumexp 0) is never met.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.attention.merge import Merger
from ropewalk.attention.pieces import Piece, blocks, one_sided, pieces
from ropewalk.attention.turning import Turned
from ropewalk.plan import Band, Plan, Region


@dataclass(frozen=True)
class Fused:
    """The last `new` of `total` tokens under a plan, in blocks of `size` queries; see gradients.Kernel.

    Attributes:
        new: queries, T.
        total: keys, S. Of a key map, the last n of them may be given.
        scaling: multiplies the logits.
    """

    plan: Plan
    new: int
    total: int
    scaling: float
    size: int

    def attend(self, queries: Turned, keys: Turned, value: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, new, width = next(iter(queries.values())).shape
        columns = value.shape[3]
        value = _widened(value, width)
        output = value.new_empty(batch, heads, new, columns)
        lse = torch.empty(batch, heads, new, dtype=torch.float32)
        for start, stop, cut in self._cuts():
            merger = Merger((batch, heads, stop - start, columns), value.device)
            for band, region, piece in cut:
                k, v = self._tokens(keys[band.key], piece), self._tokens(value, piece)
                out, piece_lse = _forward(self._rows(queries[band.query], piece), k, v, piece, region, self.scaling)
                merger.add(out[..., :columns], piece_lse, slice(piece.start - start, piece.stop - start))
            rows = slice(start - self._past, stop - self._past)
            output[:, :, rows], lse[:, :, rows] = merger.output, merger.lse
        return output, lse

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
        columns, head_dim = value.shape[3], next(iter(queries.values())).shape[3]
        width = max(head_dim, columns + (grad_lse is not None))
        value, output, grad_output = (_widened(x, width) for x in (value, output, grad_output))
        if grad_lse is not None:  # dP - D + grad_lse, by one more column of what D is the dot product of
            output[..., columns], grad_output[..., columns] = -grad_lse, 1.0
        grad_queries, grad_keys = (
            {to: torch.zeros_like(x, dtype=torch.float32) for to, x in turned.items()} for turned in (queries, keys)
        )
        grad_value = torch.zeros_like(value, dtype=torch.float32)
        for _, _, cut in self._cuts():
            for band, region, piece in cut:
                q, k = self._rows(queries[band.query], piece), self._tokens(keys[band.key], piece)
                found = _backward(
                    self._rows(grad_output, piece),
                    _widened(q, width),
                    _widened(k, width),
                    self._tokens(value, piece),
                    self._rows(output, piece),
                    self._rows(lse, piece),
                    piece,
                    region,
                    self.scaling,
                )
                self._rows(grad_queries[band.query], piece).add_(found[0][..., :head_dim])
                self._tokens(grad_keys[band.key], piece).add_(found[1][..., :head_dim])
                self._tokens(grad_value, piece).add_(found[2])
        return grad_queries, grad_keys, grad_value[..., :columns]

    @property
    def _past(self) -> int:
        return self.total - self.new

    def _cuts(self) -> Iterator[tuple[int, int, list[tuple[Band, Region, Piece]]]]:
        """Every block of queries [start, stop) with its pieces."""
        for start, stop in blocks(self.plan, self._past, self.total, self.size):
            yield (
                start,
                stop,
                [
                    (band, region, piece)
                    for band, region in one_sided(self.plan)
                    for piece in pieces(region, start, stop, self.total)
                ],
            )

    def _rows(self, x: Tensor, piece: Piece) -> Tensor:
        """The queries of a piece among the last T of all, a view."""
        return x[:, :, piece.start - self._past : piece.stop - self._past]

    def _tokens(self, x: Tensor, piece: Piece) -> Tensor:
        """The keys of a piece among the last n of all, a view."""
        skipped = self.total - x.shape[2]
        assert piece.first >= skipped, "a band sees keys that were not held"
        return x[:, :, piece.first - skipped : piece.last - skipped]


def _widened(x: Tensor, width: int) -> Tensor:
    """Zeros behind the columns; x itself where there is no room for any."""
    return torch.nn.functional.pad(x, (0, width - x.shape[3])) if x.shape[3] < width else x


def _for_heads(value: Tensor, key: Tensor) -> Tensor:
    """Values for keys that are other ones for every query head."""
    return value if value.shape[1] == key.shape[1] else value.repeat_interleave(key.shape[1] // value.shape[1], 1)


def _mask(q: Tensor, piece: Piece, region: Region) -> Tensor | None:
    if piece.shape != "masked":
        return None
    m = torch.arange(piece.start, piece.stop)[:, None]
    inside = region.contains(m, torch.arange(piece.first, piece.last)[None, :])
    return torch.zeros(inside.shape, dtype=q.dtype).masked_fill(~inside, -torch.inf)


def _forward(q: Tensor, k: Tensor, v: Tensor, piece: Piece, region: Region, scaling: float) -> tuple[Tensor, Tensor]:
    """Output and natural logsumexp of one piece (causal means top-left aligned in this kernel)."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    v = _for_heads(v, k)
    if piece.shape == "upper":
        out, lse = kernel(q.flip(2), k.flip(2), v.flip(2), 0.0, True, scale=scaling)
        return out.flip(2), lse.flip(2)
    out, lse = kernel(q, k, v, 0.0, piece.shape == "lower", attn_mask=_mask(q, piece, region), scale=scaling)
    return out, lse


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    piece: Piece,
    region: Region,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one piece from the merged output and logsumexp of its queries."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    heads = v.shape[1]
    causal, mask = piece.shape in ("lower", "upper"), _mask(q, piece, region)
    given = (grad, q, k, _for_heads(v, k), out, lse)
    if piece.shape == "upper":
        given = tuple(x.flip(2) for x in given)  # type: ignore[assignment]
    dq, dk, dv = kernel(*given, 0.0, causal, attn_mask=mask, scale=scaling)
    if piece.shape == "upper":
        dq, dk, dv = dq.flip(2), dk.flip(2), dv.flip(2)
    return dq, dk, dv.unflatten(1, (heads, -1)).sum(2)
