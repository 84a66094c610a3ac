"""The bands of the CUDA backend, with a dense stand-in that has FlashAttention's arguments and promises."""

import pytest
import torch

from ropewalk.attention import BACKENDS
from ropewalk.attention.base import Inputs
from ropewalk.serve.flash import FlashBands
from tests.serve.test_batch import HEADS, KV_HEADS, PLANS, SPEC, WIDTH
from tests.tolerances import assert_near

RUNS = [name for name in PLANS if name != "dca"]


def dense_varlen(q, k, v, *, softmax_scale, causal, window_size, softcap, return_softmax_lse, **lengths):
    """One sequence: causal at the bottom right, `window_size` keys to the left, (output, natural logsumexp [H, T])."""
    assert causal and return_softmax_lse and softcap == 0 and window_size[1] in (0, -1)
    assert lengths["cu_seqlens_q"].tolist() == [0, lengths["max_seqlen_q"]] == [0, len(q)]
    assert lengths["cu_seqlens_k"].tolist() == [0, lengths["max_seqlen_k"]] == [0, len(k)]
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    logits = torch.einsum("thd,shd->hts", q, k) * softmax_scale
    query, key = torch.arange(len(q))[:, None] + len(k) - len(q), torch.arange(len(k))
    seen = (key <= query) & ((key >= query - window_size[0]) | torch.tensor(window_size[0] < 0))
    logits = logits.masked_fill(~seen, -torch.inf)
    return torch.einsum("hts,shd->thd", logits.softmax(-1), v), logits.logsumexp(-1)


@pytest.mark.parametrize(("total", "new"), [(90, 90), (90, 13), (90, 1), (5, 5), (41, 2)])
@pytest.mark.parametrize("name", RUNS)
def test_bands_by_flash_attention_equal_the_reference(name, total, new) -> None:
    generator = torch.Generator().manual_seed(total)
    query, key, value = (
        torch.randn(1, heads, total, WIDTH, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    inputs = Inputs(query[:, :, -new:], key, value, WIDTH**-0.5)
    found = FlashBands(dense_varlen).attend(inputs, PLANS[name], SPEC, 0)
    wanted = BACKENDS.get("reference").attend(inputs, PLANS[name], SPEC, 0)
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other, "blockwise", torch.float32)


def test_what_flash_attention_cannot_run_is_said() -> None:
    core = FlashBands(dense_varlen)
    cuda, bfloat16 = torch.device("cuda"), torch.bfloat16
    assert core.unsupported(PLANS["dpe"], device=cuda, dtype=bfloat16, grad=False) is None
    assert "chunks" in str(core.unsupported(PLANS["dca"], device=cuda, dtype=bfloat16, grad=False))
    assert "float32" in str(core.unsupported(PLANS["dpe"], device=cuda, dtype=torch.float32, grad=False))
    assert "cpu" in str(core.unsupported(PLANS["dpe"], device=torch.device("cpu"), dtype=bfloat16, grad=False))
