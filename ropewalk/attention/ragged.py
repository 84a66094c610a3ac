"""The backend of variable-length kernels: one call for each band, forward and backward, merged by their logsumexp.

What differs between kernels (the names of arguments, what can be left out) is in a `Caller` of theirs.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ropewalk.attention import gradients
from ropewalk.attention.base import Backend, Inputs, Rows
from ropewalk.attention.caller import Caller
from ropewalk.attention.calls import Call, call_of, query_index
from ropewalk.attention.merge import Merger
from ropewalk.attention.tables import Tables
from ropewalk.attention.tail import one_band, tail_and_rest
from ropewalk.attention.turning import Turned, turned
from ropewalk.plan import Plan, Region
from ropewalk.rotary import RotarySpec

WIDEST = 256  # columns of a head in FlashAttention, a multiple of 8


class Ragged(Backend):
    """Causal plans without gaps between positions: distance bands and chunks.

    Args:
        name: of the backend.
        caller: the library.
        at_once: a step of decoding over two distance bands is one call (tail.py).
    """

    tables: Tables
    ragged = True

    def __init__(self, name: str, caller: Caller, *, at_once: bool = False) -> None:
        self.name = name
        self._at_once = at_once
        self.tables = Tables()
        self._caller = caller

    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        caller = self._caller
        if device.type != caller.device:
            return f"it runs on {caller.device.upper()}, not on {device.type!r}"
        if dtype not in caller.dtypes:
            names = " and ".join(str(x).removeprefix("torch.") for x in caller.dtypes)
            return f"it computes in {names}, not in {str(dtype).removeprefix('torch.')}"
        if device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
            return "FlashAttention wants a GPU of compute capability 8.0 or more"
        if plan.bidirectional:
            return "tokens see later ones"
        return caller.missing(grad=grad)

    def refuses(self, inputs: Inputs) -> str | None:
        columns = inputs.query.shape[3]
        if inputs.positions is not None:
            return "there are gaps between positions"
        if inputs.softcap is not None and not self._caller.softcaps:
            return "it caps no logits"
        if inputs.value.shape[3] > columns:
            return "values are wider than queries"
        spare = 8 if inputs.needs_grad and inputs.sinks is not None else 0  # a column for the logsumexp's gradient
        if columns % 8 or columns + spare > WIDEST:
            return f"heads have {columns} columns, not a multiple of 8 up to {WIDEST - spare}"
        return None

    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        def turn(query: Tensor, key: Tensor) -> tuple[Turned, Turned]:
            return turned(replace(inputs, query=query, key=key), plan, spec, layer, self.tables)

        batch, new, total = inputs.key.shape[0], inputs.query.shape[2], inputs.key.shape[2]
        rows = inputs.rows or ((0, total),) * batch
        scaling = inputs.scaling * plan.logit_scale
        kernel = _Bands(self._caller, plan, rows, new, total, scaling, inputs.softcap or 0.0)
        value = inputs.value.to(inputs.query.dtype)
        at_once = tail_and_rest(plan) if self._at_once and new == 1 and not inputs.needs_grad else None
        if at_once is not None:
            with one_band(inputs, plan, *at_once, spec, layer, self.tables) as (one, query, keys):
                output, lse = replace(kernel, plan=one).attend(query, keys, value)
        else:
            output, lse = gradients.attend(kernel, turn, inputs.query, inputs.key, value)
        if inputs.sinks is not None:
            output = output * torch.sigmoid(lse - inputs.sinks.float()[:, None])[..., None]
        return output.to(inputs.query.dtype), lse


@dataclass(frozen=True)
class _Bands:
    """A plan over rows of `total` slots, of which the last `new` are queries; a `gradients.Kernel`."""

    caller: Caller
    plan: Plan
    rows: Rows
    new: int
    total: int
    scaling: float
    softcap: float

    def attend(self, queries: Turned, keys: Turned, value: Tensor) -> tuple[Tensor, Tensor]:
        heads = _heads(keys)
        columns, width = value.shape[3], next(iter(queries.values())).shape[3]
        value = _repeated(_widened(value, width), heads)
        turned = {to: self._packed(x, heads) for to, x in queries.items()}
        some = next(iter(turned.values()))  # [queries, G, D]
        merger = Merger((1, some.shape[1], some.shape[0], columns), some.device)
        for band in self.plan.bands:
            k, v, gap = _pool(_repeated(keys[band.key], heads), value)
            call = self._call(band.region, heads, keys[band.key].shape[2], value.device, gap)
            if call is not None:
                out, lse = self.caller.forward(turned[band.query], k, v, call, self.scaling, self.softcap)
                merger.add(out[..., :columns].transpose(0, 1)[None], lse[None], sees=call.sees)
        output, lse = merger.output[0].transpose(0, 1), merger.lse[0].T[..., None]
        unpacked = self._unpacked(output.to(value.dtype), heads), self._unpacked(lse, heads, fill=-torch.inf)
        return unpacked[0], unpacked[1][..., 0]

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
        heads = _heads(keys)
        columns, head_dim = value.shape[3], next(iter(queries.values())).shape[3]
        width = head_dim + (8 if grad_lse is not None and columns == head_dim else 0)
        output, grad_output = _widened(output, width), _widened(grad_output.to(output.dtype), width)
        if grad_lse is not None:  # see Fused.gradients
            output[..., columns], grad_output[..., columns] = -grad_lse, 1.0
        out, grad = self._packed(output, heads), self._packed(grad_output, heads)
        lse = self._packed(lse[..., None], heads)[..., 0].T.contiguous()
        lse = lse.masked_fill(torch.isneginf(lse), torch.inf)  # exp(logit - inf) = 0 for a query that sees no key
        grad_queries = {to: torch.zeros_like(x, dtype=torch.float32) for to, x in queries.items()}
        grad_keys = {to: torch.zeros_like(x, dtype=torch.float32) for to, x in keys.items()}
        grad_value = torch.zeros_like(value, dtype=torch.float32)
        for band in self.plan.bands:
            key = keys[band.key]
            held = key.shape[2]
            call = self._call(band.region, heads, held, value.device, held)
            if call is None:
                continue
            index, starts = call.packed()
            wide = [_repeated(_widened(x, width), heads) for x in (key, value[:, :, -held:])]
            k, v = (x.reshape(-1, 1, width)[index] for x in wide)
            q = self._packed(_widened(queries[band.query], width), heads)
            dq, dk, dv = self.caller.backward(grad, q, k, v, out, lse, call, starts, self.scaling, self.softcap)
            if call.sees is not None:
                dq = dq.masked_fill(~call.sees[:, None, None], 0.0)
            grad_queries[band.query] += self._unpacked(dq[..., :head_dim].float(), heads)
            for into, found in (
                (grad_keys[band.key], dk[..., :head_dim]),
                (grad_value[:, :, -held:], dv[..., :columns]),
            ):
                each = found.new_zeros(len(self.rows) * heads * held, found.shape[2], dtype=torch.float32)
                each.index_add_(0, index, found[:, 0].float())
                into += each.unflatten(0, (len(self.rows), into.shape[1], -1, held)).sum(2)
        return grad_queries, grad_keys, grad_value

    def _call(self, region: Region, heads: int, held: int, device: torch.device, gap: int) -> Call | None:
        return call_of(region, self.rows, self.new, self.total, heads, held, device, gap)

    def _index(self, heads: int, device: torch.device) -> Tensor | None:
        return query_index(self.rows, self.new, self.total, heads, device)

    def _packed(self, x: Tensor, heads: int) -> Tensor:
        """What every query has, [B, H, T, W], as the queries of all sequences, [queries, H / K, W]."""
        flat = x.unflatten(1, (heads, -1)).transpose(2, 3).flatten(0, 2)
        index = self._index(heads, x.device)
        return flat if index is None else flat[index]

    def _unpacked(self, x: Tensor, heads: int, *, fill: float = 0.0) -> Tensor:
        """Back to [B, H, T, W]; padding gets `fill`."""
        index = self._index(heads, x.device)
        if index is not None:
            flat = x.new_full((len(self.rows) * heads * self.new, *x.shape[1:]), fill)
            flat[index] = x
            x = flat
        return x.unflatten(0, (len(self.rows), heads, self.new)).transpose(2, 3).flatten(1, 2)


def _heads(keys: Turned) -> int:
    """Key heads, where some maps may have keys of their own for every query head."""
    return max(key.shape[1] for key in keys.values())


def _repeated(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _widened(x: Tensor, width: int) -> Tensor:
    """Zeros behind the columns."""
    return pad(x, (0, width - x.shape[3])) if x.shape[3] < width else x


def _pool(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, int]:
    """Keys and values [B, K, n, D] as tokens [N, 1, D] one behind another, and how many lie between two heads' first.

    The memory that they are in already where both lie alike, as those of a cache do; else a copy.
    """
    value = value[:, :, -key.shape[2] :]
    gap = _gap(key)
    if gap is None or gap != _gap(value):
        key, value = key.contiguous(), value.contiguous()
        gap = key.shape[2]
    batch, heads, held, width = key.shape
    shape = ((batch * heads - 1) * gap + held, 1, width), (width, width, 1)
    return key.as_strided(*shape), value.as_strided(*shape), gap


def _gap(x: Tensor) -> int | None:
    """Tokens between the first ones of two heads in memory, or None where heads do not lie one behind another."""
    batch, heads, held, width = x.shape
    if x.stride(3) != 1 or (held > 1 and x.stride(2) != width):
        return None
    between = x.stride(1) if heads > 1 else x.stride(0) if batch > 1 else held * width
    if between % width or between < held * width or (batch > 1 and x.stride(0) != heads * between):
        return None
    return between // width
