"""Long random sequences of cache operations: rotated keys give the logits of un-rotated ones throughout."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

import ropewalk
from ropewalk.attention import rotated
from tests.architectures import build
from tests.models.batches import TARGET
from tests.models.test_cache import CLOSE, METHODS
from tests.models.twin_caches import KINDS, Twins

EXAMPLES = 1000 if os.environ.get("ROPEWALK_LONG") == "1" else 30
ROWS = 6  # at most
OPERATIONS = ("decode", "append", "crop", "reorder", "repeat", "select", "copy", "reset", "read")
RARE = {"reset": 2, "read": 1}  # the others are drawn six times as often as "read"
WEIGHTED = [name for name in OPERATIONS for _ in range(RARE.get(name, 6))]
MIXED = ["sliding_attention", "full_attention"]
NOT_STATIC = ("crop", "repeat", "select")  # transformers' static cache has none of them


@pytest.fixture(scope="module")
def models() -> dict[str, PreTrainedModel]:
    """By the kind of cache."""
    llama = build("llama")
    windows = build("gemma3_text", num_hidden_layers=2, layer_types=MIXED, sliding_window=11)
    return {"dynamic": llama, "static": llama, "sliding": windows}


@pytest.fixture(autouse=True, scope="module")
def little_room():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotated, "SPARE", 4)
        patch.setattr(rotated, "ROOM", 3)
        yield


def apply(twins: Twins, operation: str, number: int) -> None:
    """One operation; `number` says how much of it."""
    if twins.kind == "static" and operation in NOT_STATIC:
        return
    rows = len(twins.visible)
    generator = torch.Generator().manual_seed(number)
    if operation == "crop":
        most = int(twins.visible.sum(-1).min()) - 1
        if twins.kind == "sliding":
            most = min(most, twins.recorded)
        twins.crop(min(number % 31 + 1, most)) if most > 0 else None
    elif operation == "reorder":
        twins.reorder(torch.randint(rows, (rows,), generator=generator))
    elif operation == "repeat" and rows * 2 <= ROWS:
        twins.repeat(2)
    elif operation == "select":
        twins.select(torch.randperm(rows, generator=generator)[: number % rows + 1])
    elif operation == "copy":
        twins.copied()
    elif operation == "reset":
        twins.reset()
    elif operation == "read":
        twins.read()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES)
@given(
    method=st.sampled_from(sorted(METHODS)),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    operations=st.lists(st.tuples(st.sampled_from(WEIGHTED), st.integers(0, 999)), min_size=8, max_size=20),
)
def test_random_operations(
    models: dict[str, PreTrainedModel], kind: str, method: str, lengths: list[int], operations: list[tuple[str, int]]
) -> None:
    model = models[kind]
    with ropewalk.extend(model, METHODS[method], target_length=TARGET, verify=False):
        twins = Twins(model, len(lengths), seed=len(operations), kind=kind)
        width = max(lengths)
        torch.testing.assert_close(*twins.step(width, tuple(width - length for length in lengths)), **CLOSE)
        unread = True
        for operation, number in operations:
            apply(twins, operation, number)
            unread = (unread and operation != "read") or operation == "reset"
            count = number % 25 + 2 if operation == "append" else 1
            if twins.length + count > TARGET - 4:
                twins.reset()
                unread = True
            torch.testing.assert_close(*twins.step(count), **CLOSE)
            assert twins.rotated == unread
