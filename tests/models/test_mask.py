"""The mask of key positions against the dense masks of transformers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    eager_mask,
    or_masks,
    packed_sequence_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)

from ropewalk.errors import ModelError
from ropewalk.models.mask import (
    AHEAD,
    OFFSET,
    POSITION,
    ROWS,
    SEGMENT,
    WINDOW,
    dense_mask,
    position_mask,
    sees_ahead,
    sequences,
    window_of,
)


def padding(*edges: tuple[int, int], width: int) -> Tensor:
    """Bool [rows, width], True in [first, last) of each row."""
    slots = torch.arange(width)
    return torch.stack([(slots >= first) & (slots < last) for first, last in edges])


DOCUMENTS = torch.tensor([[0] * 3 + [1] * 7 + [2] * 1, [0] * 11, [0] * 10 + [1]])
CASES: dict[str, dict[str, Any]] = {
    "causal": {"q_length": 11, "kv_length": 11},
    "one token": {"q_length": 1, "kv_length": 1},
    "padded left": {"q_length": 11, "kv_length": 11, "attention_mask": padding((4, 11), (0, 11), (10, 11), width=11)},
    "padded right": {"q_length": 11, "kv_length": 11, "attention_mask": padding((0, 5), (0, 11), (0, 1), width=11)},
    "padded on both sides": {
        "q_length": 11,
        "kv_length": 11,
        "attention_mask": padding((2, 9), (0, 11), (3, 4), width=11),
    },
    "chunk": {"q_length": 5, "kv_length": 17, "q_offset": 12},
    "chunk after left padding": {
        "q_length": 5,
        "kv_length": 17,
        "q_offset": 12,
        "attention_mask": padding((3, 17), (0, 17), (14, 17), width=17),
    },
    "decode": {
        "q_length": 1,
        "kv_length": 17,
        "q_offset": 16,
        "attention_mask": padding((3, 17), (0, 17), (16, 17), width=17),
    },
    "static cache, prefill": {"q_length": 7, "kv_length": 19},
    "static cache, chunk": {"q_length": 4, "kv_length": 19, "q_offset": 7},
    "static cache, padded": {
        "q_length": 4,
        "kv_length": 19,
        "q_offset": 7,
        "attention_mask": padding((2, 11), (0, 11), (8, 11), width=11),
    },
    "sliding": {"q_length": 11, "kv_length": 11, "local_size": 4},
    "sliding, padded": {
        "q_length": 11,
        "kv_length": 11,
        "local_size": 4,
        "attention_mask": padding((4, 11), (0, 11), (10, 11), width=11),
    },
    "sliding cache that forgot the first keys": {
        "q_length": 3,
        "kv_length": 10,
        "q_offset": 15,
        "kv_offset": 8,
        "local_size": 8,
        "attention_mask": padding((3, 18), (0, 18), (9, 18), width=18),
    },
    "packed": {"q_length": 11, "kv_length": 11, "documents": DOCUMENTS},
    "both sides": {"q_length": 11, "kv_length": 11, "both_sides": True},
    "both sides, one token": {"q_length": 1, "kv_length": 1, "both_sides": True},
    "both sides, padded": {
        "q_length": 11,
        "kv_length": 11,
        "both_sides": True,
        "attention_mask": padding((4, 11), (0, 5), (2, 9), width=11),
    },
    "both sides, sliding": {"q_length": 11, "kv_length": 11, "both_sides": True, "local_size": 3},
    "both sides, sliding, padded": {
        "q_length": 11,
        "kv_length": 11,
        "both_sides": True,
        "local_size": 3,
        "attention_mask": padding((4, 11), (0, 5), (2, 9), width=11),
    },
    "both sides, packed": {"q_length": 11, "kv_length": 11, "both_sides": True, "documents": DOCUMENTS},
    "packed and sliding": {"q_length": 11, "kv_length": 11, "local_size": 4, "documents": DOCUMENTS},
}


def both(case: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Our mask, the boolean mask [3, T, S] of transformers, and which queries [3, T] are not padding."""
    case = dict(case)
    documents, both_sides = case.pop("documents", None), case.pop("both_sides", False)
    local = case.get("local_size")
    function: Callable[..., Any] = bidirectional_mask_function if both_sides else causal_mask_function
    if local is not None:
        window = sliding_window_bidirectional_mask_function if both_sides else sliding_window_causal_mask_function
        function = window(local)
    if documents is not None:
        function = and_masks(function, packed_sequence_mask_function(documents))
    case |= {"batch_size": 3, "mask_function": function}
    dense = eager_mask(**case)[:, 0] == 0
    queries = torch.arange(case["q_length"]) + case.get("q_offset", 0)
    real = torch.ones(3, case["q_length"], dtype=torch.bool)
    if case.get("attention_mask") is not None:
        real = case["attention_mask"][:, queries]
    return position_mask(**case), dense.expand(3, -1, -1), real


@pytest.mark.parametrize("name", CASES)
def test_dense_mask_is_the_eager_mask(name: str) -> None:
    ours, theirs, real = both(CASES[name])
    assert ours.dtype == torch.int64
    assert ours.shape == (3, 1, ROWS, CASES[name]["kv_length"])
    additive = dense_mask(ours, CASES[name]["q_length"], torch.float32)
    assert additive.shape == (3, 1, *theirs.shape[1:])
    assert set(additive.unique().tolist()) <= {0.0, torch.finfo(torch.float32).min}
    assert torch.equal((additive[:, 0] == 0)[real], theirs[real])


@pytest.mark.parametrize("name", [name for name in CASES if "sliding" not in name])
def test_sequences_see_what_the_eager_mask_shows(name: str) -> None:
    ours, theirs, real = both(CASES[name])
    assert torch.equal(shown(ours, CASES[name]["q_length"])[real], theirs[real])


def shown(mask: Tensor, queries: int) -> Tensor:
    """Bool [B, T, S]: what the sequences let each query see; each query in one sequence at most."""
    result = torch.zeros(mask.shape[0], queries, mask.shape[-1], dtype=torch.bool)
    covered = torch.zeros(mask.shape[0], queries, dtype=torch.int64)
    for sequence in sequences(mask, queries, None):
        size, length = sequence.queries.stop - sequence.queries.start, sequence.keys.stop - sequence.keys.start
        seen = torch.ones(size, length, dtype=torch.bool)
        if not sees_ahead(mask):
            seen = seen.tril(length - size)
        for row in range(mask.shape[0]) if sequence.rows is None else sequence.rows.tolist():
            result[row, sequence.queries, sequence.keys] |= seen
            covered[row, sequence.queries] += 1
    assert covered.max() <= 1
    return result


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_padded_piece_is_the_eager_mask(data: st.DataObject) -> None:
    past, new, unwritten = (
        data.draw(st.integers(low, 9), name) for name, low in (("past", 0), ("new", 1), ("free", 0))
    )
    total = past + new
    edges = []
    for _ in range(3):
        first = data.draw(st.integers(0, total - 1))
        edges.append((first, data.draw(st.integers(first + 1, total))))
    visible = padding(*edges, width=total)
    case = {"q_length": new, "kv_length": total + unwritten, "q_offset": past, "attention_mask": visible}
    ours, theirs, real = both(case)
    assert torch.equal((dense_mask(ours, new, torch.float32)[:, 0] == 0)[real], theirs[real])
    assert torch.equal(shown(ours, new)[real], theirs[real])


def test_rows_of_the_mask_say_position_window_document_and_offset() -> None:
    ours, _, _ = both(CASES["sliding cache that forgot the first keys"])
    assert ours[0, 0, POSITION].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]  # token 3 is number 0
    assert ours[2, 0, POSITION].tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert window_of(ours) == 8
    assert ours[:, 0, OFFSET].unique().tolist() == [7]
    ours, _, _ = both(CASES["packed"])
    assert torch.equal(ours[:, 0, SEGMENT], DOCUMENTS)
    assert window_of(ours) is None
    assert not ours[:, 0, WINDOW].any()


@pytest.mark.parametrize("name", CASES)
def test_mask_says_whether_tokens_see_later_ones(name: str) -> None:
    ours, _, _ = both(CASES[name])
    assert sees_ahead(ours) == name.startswith("both sides")
    assert ours[:, 0, AHEAD].unique().tolist() == [name.startswith("both sides")]


@pytest.mark.parametrize(("function", "window"), [(sliding_window_bidirectional_mask_function(3), 4), (None, 3)])
def test_window_is_inclusive_where_the_family_has_it_so(function: Callable[..., Any] | None, window: int) -> None:
    """Gemma 3 excludes the distance of `local_size` tokens, ModernBERT includes it."""
    function = function or (lambda b, h, q, k: abs(q - k) < 3)
    for length in (1, 11):
        ours = position_mask(batch_size=1, q_length=length, kv_length=length, mask_function=function, local_size=3)
        assert window_of(ours) == window


def test_offset_may_be_a_tensor() -> None:
    case = CASES["static cache, padded"]
    plain, _, _ = both(case)
    assert torch.equal(both(case | {"q_offset": torch.tensor(7)})[0], plain)


def test_plain_batch_is_one_sequence() -> None:
    ours, _, _ = both(CASES["chunk"])
    (only,) = sequences(ours, 5, None)
    assert (only.rows, only.keys, only.queries, only.positions) == (None, slice(0, 17), slice(12 - 12, 5), None)


def test_rows_of_one_shape_share_a_sequence() -> None:
    mask = padding((4, 11), (0, 11), (4, 11), width=11)
    ours = position_mask(
        batch_size=3, q_length=11, kv_length=11, mask_function=causal_mask_function, attention_mask=mask
    )
    found = {(s.keys.start, s.keys.stop): s.rows.tolist() for s in sequences(ours, 11, None) if s.rows is not None}
    assert found == {(4, 11): [0, 2], (0, 11): [1]}


def test_skipped_position_ids_are_kept_from_the_first_visible_token() -> None:
    mask = padding((0, 5), (2, 5), (0, 5), width=5)
    ours = position_mask(batch_size=3, q_length=5, kv_length=5, mask_function=causal_mask_function, attention_mask=mask)
    ids = torch.tensor([[7, 8, 20, 21, 22], [0, 0, 0, 4, 9], [3, 4, 5, 6, 7]])
    steps = {tuple(s.rows.tolist()): s.positions for s in sequences(ours, 5, ids) if s.rows is not None}
    assert steps[(0,)].tolist() == [0, 1, 13, 14, 15]
    assert steps[(1,)].tolist() == [0, 4, 9]
    assert steps[(2,)] is None


def test_holes_and_prefix_masks_are_refused() -> None:
    visible = torch.tensor([[1, 1, 0, 1]], dtype=torch.bool)
    common: dict[str, Any] = {"batch_size": 1, "q_length": 4, "kv_length": 4}
    with pytest.raises(ModelError, match="holes"):
        sequences(position_mask(**common, mask_function=causal_mask_function, attention_mask=visible), 4, None)
    with pytest.raises(ModelError, match="prefix mask"):
        position_mask(**common, mask_function=or_masks(causal_mask_function, lambda b, h, q, k: k < 2))
