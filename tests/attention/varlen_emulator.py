"""Variable-length attention kernels on a CPU, dense: what torch and flash-attn promise on CUDA, and nothing more.

What they leave open is a choice here or poison: rows that see no key have NaN for output and one of the logsumexps that
libraries give them; keys beyond those of a sequence are never read.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ropewalk.attention.flash import FlashAttention
from ropewalk.attention.ragged import Ragged
from ropewalk.attention.varlen import TorchVarlen

CONVENTIONS = {"FlashAttention-2": torch.inf, "FlashAttention-3": -torch.inf, "zero": 0.0}  # of rows that see no key


class Dense:
    """Attention within sequences, with the two masks that the kernels have: a window, at the bottom right.

    Args:
        empty: logsumexp of a row that sees no key.
    """

    def __init__(self, empty: float = torch.inf) -> None:
        self.empty = empty

    def logits(self, q: Tensor, k: Tensor, window: tuple[int, int], scale: float, softcap: float) -> Tensor:
        """[H, t, s] of one sequence, -inf where a query does not see a key."""
        wide = torch.promote_types(q.dtype, torch.float32)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        found = torch.einsum("thd,shd->hts", q.to(wide), k.to(wide)) * scale
        if softcap:
            found = softcap * torch.tanh(found / softcap)
        place = torch.arange(len(q))[:, None] + len(k) - len(q)
        at = torch.arange(len(k))[None, :]
        seen = torch.ones(len(q), len(k), dtype=torch.bool)
        if window[0] >= 0:
            seen &= at >= place - window[0]
        if window[1] >= 0:
            seen &= at <= place + window[1]
        return found.masked_fill(~seen, -torch.inf)

    def forward(self, q, k, v, starts_q, starts_k, used_k, longest, window, scale, softcap=0.0):
        """Output [Q, H, D] and logsumexp [H, Q]."""
        self.check(q, k, v, starts_q, starts_k, used_k)
        out = torch.full_like(q, torch.nan)
        lse = torch.full((q.shape[1], len(q)), self.empty, dtype=torch.promote_types(q.dtype, torch.float32))
        for rows, keys in self.sequences(starts_q, starts_k, used_k, longest):
            logits = self.logits(q[rows], k[keys], window, scale, softcap)
            values = v[keys].repeat_interleave(q.shape[1] // v.shape[1], 1).to(logits)
            sees = ~torch.isneginf(logits).all(-1)
            found = torch.einsum("hts,shd->thd", logits.softmax(-1), values)
            out[rows] = found.to(q.dtype).masked_fill(~sees.T[..., None], torch.nan)
            lse[:, rows] = torch.where(sees, logits.logsumexp(-1), self.empty).to(lse)
        return out, lse

    def backward(self, grad, q, k, v, out, lse, starts_q, starts_k, longest, window, scale, softcap=0.0):
        """FlashAttention-2's backward pass: weights from the logsumexp it is given, D from the output it is given."""
        used = starts_k.diff()
        self.check(q, k, v, starts_q, starts_k, used)
        dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
        repeats = q.shape[1] // k.shape[1]
        for rows, keys in self.sequences(starts_q, starts_k, used, longest):
            with torch.enable_grad():
                leaves = [x.detach().clone().requires_grad_() for x in (q[rows], k[keys])]
                logits = self.logits(*leaves, window, scale, softcap)
            weights = torch.exp(logits.detach() - lse[:, rows, None])
            ours = grad[rows].to(weights)
            values = v[keys].repeat_interleave(repeats, 1).to(weights)
            dp = torch.einsum("thd,shd->hts", ours, values)
            product = (ours * out[rows].to(weights)).sum(-1).T
            dq[rows], dk_here = torch.autograd.grad(logits, leaves, weights * (dp - product[..., None]))
            dk[keys] += dk_here
            dv[keys] += torch.einsum("hts,thd->shd", weights, ours).unflatten(1, (-1, repeats)).sum(2).to(dv)
        return dq, dk, dv

    @staticmethod
    def check(q, k, v, starts_q, starts_k, used_k) -> None:
        for numbers in (starts_q, starts_k, used_k):
            assert numbers.dtype == torch.int32 and numbers.is_contiguous()
        assert len(starts_q) == len(starts_k) == len(used_k) + 1
        assert starts_q[0] == 0 and starts_q[-1] == len(q) and starts_k[-1] == len(k)
        assert (starts_q.diff() >= 0).all() and (starts_k.diff() >= 0).all() and (used_k >= 0).all()
        assert q.shape[2] == k.shape[2] == v.shape[2] <= 256 and q.shape[2] % 8 == 0
        assert q.shape[1] % k.shape[1] == 0 and k.shape[:2] == v.shape[:2]
        assert q.dtype == k.dtype == v.dtype and all(x.stride(-1) == 1 for x in (q, k, v))

    @staticmethod
    def sequences(starts_q, starts_k, used_k, longest):
        """The queries and keys of every sequence, which are no more than the caller says."""
        for i, used in enumerate(used_k.tolist()):
            rows = slice(int(starts_q[i]), int(starts_q[i + 1]))
            assert rows.stop - rows.start <= longest[0] and used <= longest[1]
            yield rows, slice(int(starts_k[i]), int(starts_k[i]) + used)


class AuxRequest(NamedTuple):
    lse: bool = False


class TorchModule:
    """torch.nn.attention.varlen, as torch 2.13 has it.

    Args:
        heads_first: the logsumexp is [heads, queries], as the code says, or the other way round, as its page says.
    """

    AuxRequest = AuxRequest

    def __init__(self, empty: float = torch.inf, *, heads_first: bool = True) -> None:
        self.dense = Dense(empty)
        self.heads_first = heads_first

    def varlen_attn(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        return_aux=None,
        scale=None,
        window_size=(-1, -1),
        enable_gqa=False,
        seqused_k=None,
        block_table=None,
        num_splits=None,
    ):
        assert block_table is None and num_splits is None and (enable_gqa or query.shape[1] == key.shape[1])
        lengths = (cu_seq_q, cu_seq_k, cu_seq_k.diff() if seqused_k is None else seqused_k)
        out, lse = self.dense.forward(query, key, value, *lengths, (max_q, max_k), window_size, scale)
        return (out, lse if self.heads_first else lse.T) if return_aux is not None and return_aux.lse else out

    def _varlen_attn_backward(
        self,
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
        is_causal,
        rng_state,
        scale=None,
        window_size=None,
    ):
        assert is_causal == (tuple(window_size) == (-1, 0)) and rng_state.shape == (2,)
        lse = lse if self.heads_first else lse.T
        given = (grad_out, query, key, value, out, lse, cu_seq_q, cu_seq_k)
        return self.dense.backward(*given, (max_q, max_k), tuple(window_size), scale)


class Operators:
    """torch.ops.aten as far as `varlen_attn` hands over to it, with torch's own schemas, on which calls are bound."""

    def __init__(self) -> None:
        self.dense = Dense()

    @property
    def _flash_attention_forward(self):
        return Operator(torch.ops.aten._flash_attention_forward, self.forward)

    @property
    def _flash_attention_backward(self):
        return Operator(torch.ops.aten._flash_attention_backward, self.backward)

    def forward(self, given):
        assert given["dropout_p"] == 0 and not given["return_debug_mask"]
        out, lse = self.dense.forward(
            *(given[name] for name in ("query", "key", "value", "cum_seq_q", "cum_seq_k", "seqused_k")),
            (given["max_q"], given["max_k"]),
            window_of(given),
            given["scale"],
        )
        return out, lse, None, None, None

    def backward(self, given):
        names = ("grad_out", "query", "key", "value", "out", "logsumexp", "cum_seq_q", "cum_seq_k")
        return self.dense.backward(
            *(given[name] for name in names), (given["max_q"], given["max_k"]), window_of(given), given["scale"]
        )


def window_of(given) -> tuple[int, int]:
    window = given["window_size_left"], given["window_size_right"]
    assert given["is_causal"] == (window == (-1, 0))
    return window


class Operator:
    """A function of the bound arguments, called as an operator of torch is."""

    def __init__(self, operator, function) -> None:
        self.default = operator.default
        self.function = function

    def __call__(self, *args, **kwargs):
        arguments = self.default._schema.arguments
        positional = [argument.name for argument in arguments if not argument.kwarg_only]
        assert len(args) == len(positional) and kwargs.keys() <= {argument.name for argument in arguments}
        return self.function(dict(zip(positional, args, strict=True)) | kwargs)


class EmulatedVarlen(TorchVarlen):
    """The caller of torch's kernel, over the emulator."""

    device = "cpu"
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class FlashModule:
    """flash_attn.flash_attn_interface, as flash-attn 2.7 has it.

    Args:
        results: how many the forward function returns; before 2.7 there were 8.
    """

    def __init__(self, empty: float = torch.inf, *, results: int = 4) -> None:
        self.dense = Dense(empty)
        self.results = results

    def _flash_attn_varlen_forward(
        self,
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size_left=-1,
        window_size_right=-1,
        softcap=0.0,
        alibi_slopes=None,
        return_softmax=False,
        block_table=None,
        leftpad_k=None,
        seqused_k=None,
    ):
        assert dropout_p == 0 and alibi_slopes is None and not return_softmax and block_table is None
        assert leftpad_k is None
        used = cu_seqlens_k.diff() if seqused_k is None else seqused_k
        window = (window_size_left, 0 if causal else window_size_right)
        given = (q, k, v, cu_seqlens_q, cu_seqlens_k, used, (max_seqlen_q, max_seqlen_k))
        out, lse = self.dense.forward(*given, window, softmax_scale, softcap)
        return (out, lse, *[None] * (self.results - 2))

    def _flash_attn_varlen_backward(
        self,
        dout,
        q,
        k,
        v,
        out,
        softmax_lse,
        dq,
        dk,
        dv,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        dropout_p,
        softmax_scale,
        causal,
        window_size_left,
        window_size_right,
        softcap,
        alibi_slopes,
        deterministic,
        rng_state=None,
        zero_tensors=False,
    ):
        assert dropout_p == 0 and alibi_slopes is None
        window = (window_size_left, 0 if causal else window_size_right)
        given = (dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, (max_seqlen_q, max_seqlen_k))
        for into, found in zip((dq, dk, dv), self.dense.backward(*given, window, softmax_scale, softcap), strict=True):
            into.copy_(found)


class EmulatedFlash(FlashAttention):
    """The caller of the flash-attn package, over the emulator."""

    device = "cpu"
    dtypes = EmulatedVarlen.dtypes


def emulated() -> dict[str, Ragged]:
    """The backends of these libraries, runnable here."""
    return {
        "varlen": Ragged("varlen", EmulatedVarlen(TorchModule(heads_first=False))),
        "flash": Ragged("flash", EmulatedFlash(FlashModule())),
    }
