"""Merging pieces that saw disjoint sets of keys gives the attention over their union."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.attention.merge import Merger

B, H, T, S, V = 2, 3, 5, 23, 4
NEAR = {"atol": 2e-6, "rtol": 2e-6}


@pytest.fixture(scope="module")
def logits_and_values():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, H, T, S, generator=generator) * 3, torch.randn(B, H, S, V, generator=generator)


def attend(logits, values):
    return logits.softmax(-1) @ values, logits.logsumexp(-1)


def merged(pieces):
    """Merge (output, lse, keyword arguments) in their order."""
    merger = Merger((B, H, T, V), torch.device("cpu"))
    for output, lse, keywords in pieces:
        merger.add(output, lse, **keywords)
    return merger.output, merger.lse


def assert_same(left, right) -> None:
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours, theirs, **NEAR)


@given(cuts=st.sets(st.integers(1, S - 1)), data=st.data())
def test_pieces_in_any_order_are_the_whole(logits_and_values, cuts, data) -> None:
    logits, values = logits_and_values
    borders = [0, *sorted(cuts), S]
    pieces = [(*attend(logits[..., a:b], values[:, :, a:b]), {}) for a, b in pairwise(borders)]
    shuffled = data.draw(st.permutations(pieces))
    assert_same(merged(shuffled), attend(logits, values))


@pytest.mark.parametrize("fill", [0.0, float("inf"), float("-inf"), float("nan"), 7.0])
@pytest.mark.parametrize("position", [0, 1])
def test_rows_that_saw_no_key_weigh_nothing_whatever_they_hold(logits_and_values, fill, position) -> None:
    logits, values = logits_and_values
    sees = torch.tensor([True, False, True, False, False])
    output, lse = attend(logits[..., 9:], values[:, :, 9:])
    output[:, :, ~sees], lse[:, :, ~sees] = torch.nan, fill
    whole = attend(logits, values)
    part = attend(logits[..., :9], values[:, :, :9])
    pieces = [(*part, {})]
    pieces.insert(position, (output, lse, {"sees": sees}))
    expected = [torch.where(sees.view(1, 1, T, *[1] * (w.dim() - 3)), w, p) for w, p in zip(whole, part, strict=True)]
    assert_same(merged(pieces), expected)


def test_rows_that_no_piece_saw_are_zero_with_logsumexp_minus_infinity(logits_and_values) -> None:
    output, lse = attend(*logits_and_values)
    ours, our_lse = merged([(output * torch.nan, lse, {"sees": torch.zeros(T, dtype=torch.bool)})] * 2)
    assert torch.equal(ours, torch.zeros(B, H, T, V))
    assert torch.isneginf(our_lse).all()


def test_a_piece_for_some_rows_leaves_the_others_alone(logits_and_values) -> None:
    logits, values = logits_and_values
    first, second = attend(logits[..., :9], values[:, :, :9]), attend(logits[..., 9:], values[:, :, 9:])
    rows = slice(2, 4)
    ours = merged([(*first, {}), (second[0][:, :, rows], second[1][:, :, rows], {"rows": rows})])
    expected = [x.clone() for x in first]
    for mine, whole in zip(expected, attend(logits, values), strict=True):
        mine[:, :, rows] = whole[:, :, rows]
    assert_same(ours, expected)


def test_pieces_in_bf16_are_merged_in_float32(logits_and_values) -> None:
    output, lse = attend(*logits_and_values)
    ours, _ = merged([(output.bfloat16(), lse, {}), (output.bfloat16(), lse, {})])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, output.bfloat16().float(), **NEAR)


def test_logsumexp_far_apart_does_not_overflow(logits_and_values) -> None:
    output, lse = attend(*logits_and_values)
    ours, our_lse = merged([(output, lse + 1e4, {}), (output * 5, lse - 1e4, {})])
    assert_same((ours, our_lse), (output, lse + 1e4))
