"""The attention oracle against ordinary RoPE attention, with queries and keys rotated by transformers' own function."""

import math

import pytest
import torch
from torch import Tensor
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_interleaved
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from . import distances
from .attention import attend
from .frequencies import plain

B, H, K, T, D = 2, 4, 2, 37, 16
SCALING = D**-0.5
CAUSAL = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)


def tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(B, heads, T, D, generator=generator, dtype=torch.float64) for heads in (H, K, K))
    return query, key, value


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float = SCALING) -> tuple[Tensor, Tensor]:
    """Textbook causal attention of already rotated queries and keys."""
    logits = query @ repeat_kv(key, H // K).transpose(2, 3) * scaling
    logits = logits.masked_fill(~CAUSAL[:, None], -math.inf)
    return logits.softmax(-1) @ repeat_kv(value, H // K), logits.logsumexp(-1)


def llama_tables(inv_freq: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    angles = positions[:, None] * inv_freq
    angles = torch.cat((angles, angles), dim=-1)[None]
    return angles.cos(), angles.sin()


def assert_equal(ours: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for left, right in zip(ours, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-10)


@pytest.mark.parametrize("start", [0, 1000])
def test_plain_distance_is_rope_of_llama(start: int) -> None:
    query, key, value = tensors()
    inv_freq = torch.from_numpy(plain(D, 1e4))
    cos, sin = llama_tables(inv_freq, torch.arange(start, start + T, dtype=torch.float64))
    rotated_query, rotated_key = apply_rotary_pos_emb(query, key, cos, sin)
    expected = softmax_attention(rotated_query, rotated_key, value)
    ours = attend(query, key, value, inv_freq, distances.plain(T), scaling=SCALING, layout="half", visible=CAUSAL)
    assert_equal(ours, expected)


def test_attention_scaling_multiplies_cos_and_sin_of_both_sides() -> None:
    query, key, value = tensors(1)
    inv_freq = torch.from_numpy(plain(D, 1e4))
    cos, sin = llama_tables(inv_freq, torch.arange(T, dtype=torch.float64))
    rotated_query, rotated_key = apply_rotary_pos_emb(query, key, 1.3 * cos, 1.3 * sin)
    expected = softmax_attention(rotated_query, rotated_key, value)
    ours = attend(
        query,
        key,
        value,
        inv_freq.tolist(),
        distances.plain(T),
        scaling=SCALING,
        layout="half",
        visible=CAUSAL,
        attention_scaling=1.3,
    )
    assert_equal(ours, expected)


@pytest.mark.parametrize(("rotary_start", "rotary_dim"), [(0, 8), (6, 10), (8, 8)])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_partial_rotary_leaves_the_other_dimensions_alone(rotary_start: int, rotary_dim: int, layout: str) -> None:
    query, key, value = tensors(2)
    inv_freq = torch.from_numpy(plain(rotary_dim, 1e4))
    positions = torch.arange(T, dtype=torch.float64)
    inside = slice(rotary_start, rotary_start + rotary_dim)
    rotated_query, rotated_key = query.clone(), key.clone()
    if layout == "half":
        cos, sin = llama_tables(inv_freq, positions)
        rotated = apply_rotary_pos_emb(query[..., inside], key[..., inside], cos, sin)
    else:
        angles = (positions[:, None] * inv_freq)[None]
        # GPT-J holds [B, T, heads, D] and one cos or sin for each pair.
        rotated = tuple(
            rotate_interleaved(x[..., inside].transpose(1, 2), angles.sin(), angles.cos()).transpose(1, 2)
            for x in (query, key)
        )
    rotated_query[..., inside], rotated_key[..., inside] = rotated
    ours = attend(
        query,
        key,
        value,
        inv_freq,
        distances.plain(T),
        scaling=SCALING,
        layout=layout,
        visible=CAUSAL,
        rotary_start=rotary_start,
    )
    assert_equal(ours, softmax_attention(rotated_query, rotated_key, value))


def test_no_rotary_is_plain_attention() -> None:
    query, key, value = tensors(3)
    ours = attend(query, key, value, None, distances.plain(T), scaling=SCALING, layout="half", visible=CAUSAL)
    assert_equal(ours, softmax_attention(query, key, value))


def test_leaky_rerope_without_a_window_is_rope_at_divided_positions() -> None:
    query, key, value = tensors(4)
    inv_freq = torch.from_numpy(plain(D, 1e4))
    cos, sin = llama_tables(inv_freq, torch.arange(T, dtype=torch.float64) / 3)
    rotated_query, rotated_key = apply_rotary_pos_emb(query, key, cos, sin)
    expected = softmax_attention(rotated_query, rotated_key, value)
    distance = distances.leaky_rerope(T, 0, 3)
    ours = attend(query, key, value, inv_freq, distance, scaling=SCALING, layout="half", visible=CAUSAL)
    assert_equal(ours, expected)


def test_distance_per_head_and_pair_reaches_its_head_and_pair() -> None:
    query, key, value = tensors(5)
    inv_freq = torch.from_numpy(plain(D, 1e4))
    scales = torch.full((H, D // 2), 4.0)
    scales[1] = 1.0
    scales[2, :3] = 1.0

    def run(scales_of_pairs: Tensor) -> Tensor:
        distance = distances.dpe(T, scales_of_pairs, 5)
        return attend(query, key, value, inv_freq, distance, scaling=SCALING, layout="half", visible=CAUSAL)[0]

    output = run(scales)
    for head in range(H):
        torch.testing.assert_close(output[:, head], run(scales[head])[:, head], rtol=0, atol=1e-12)
    assert not torch.allclose(output[:, 2], run(scales[3])[:, 2])


def test_empty_row_is_zero_with_logsumexp_minus_infinity_and_finite_gradients() -> None:
    query, key, value = (x.requires_grad_() for x in tensors(6))
    visible = CAUSAL.clone()
    visible[1, :5] = False
    inv_freq = torch.from_numpy(plain(D, 1e4))
    output, logsumexp = attend(
        query, key, value, inv_freq, distances.plain(T), scaling=SCALING, layout="half", visible=visible
    )
    assert torch.equal(output[1, :, :5], torch.zeros(H, 5, D, dtype=torch.float64))
    assert (logsumexp[1, :, :5] == -math.inf).all()
    assert logsumexp[0].isfinite().all() and logsumexp[1, :, 5:].isfinite().all()
    output.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (query, key, value))


def test_query_scale_softcap_and_sinks_act_on_the_logits() -> None:
    query, key, value = tensors(7)
    query_scale = torch.linspace(1, 2, T, dtype=torch.float64)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    logits = query @ repeat_kv(key, H // K).transpose(2, 3) * SCALING * query_scale[:, None]
    logits = (3.0 * torch.tanh(logits / 3.0)).masked_fill(~CAUSAL[:, None], -math.inf)
    with_sink = torch.cat((logits, sinks.view(1, H, 1, 1).expand(B, H, T, 1)), dim=-1)
    expected = with_sink.softmax(-1)[..., :-1] @ repeat_kv(value, H // K)
    ours = attend(
        query,
        key,
        value,
        None,
        distances.plain(T),
        scaling=SCALING,
        layout="half",
        visible=CAUSAL,
        query_scale=query_scale,
        softcap=3.0,
        sinks=sinks,
    )
    assert_equal(ours, (expected, logits.logsumexp(-1)))


def test_last_rows_alone_equal_the_last_rows_of_the_whole() -> None:
    query, key, value = tensors(8)
    inv_freq = torch.from_numpy(plain(D, 1e4))
    distance = distances.dca(T, 7, 3)
    whole, whole_lse = attend(query, key, value, inv_freq, distance, scaling=SCALING, layout="half", visible=CAUSAL)
    last = slice(T - 3, T)
    rows = attend(
        query[:, :, last],
        key,
        value,
        inv_freq,
        distance[:, last],
        scaling=SCALING,
        layout="half",
        visible=CAUSAL[:, last],
    )
    assert_equal(rows, (whole[:, :, last], whole_lse[:, :, last]))
