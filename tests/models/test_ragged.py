"""Backends of CUDA under a model, over their emulator: padded batches, caches, training, mixed precision."""

import pytest
import torch
from transformers import PreTrainedModel

import ropewalk
from ropewalk.attention import BACKENDS
from ropewalk.attention.ragged import Ragged
from tests.architectures import build
from tests.attention.varlen_emulator import EmulatedFlash, EmulatedVarlen, FlashModule, TorchModule
from tests.models.batches import LENGTH, POSITION_METHODS, TARGET, padded, texts, whole
from tests.models.test_training import assert_same, learn


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, caller in (("varlen", EmulatedVarlen(TorchModule())), ("flash", EmulatedFlash(FlashModule()))):
        monkeypatch.setattr(BACKENDS.get(name), "_caller", caller)


@pytest.fixture
def llama() -> PreTrainedModel:
    return build("llama")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a backend had."""
    found: list[int] = []
    attend = Ragged.attend

    def counted(self, inputs, *rest):
        found.append(len(inputs.query))
        return attend(self, inputs, *rest)

    monkeypatch.setattr(Ragged, "attend", counted)
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", POSITION_METHODS)
def test_padded_rows_are_one_call_and_equal_the_rows_alone(llama, calls, method, side) -> None:
    rows = texts(LENGTH, 71, 38)
    ids, mask = padded(rows, side)
    with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET, backend="varlen"):
        calls.clear()
        together = whole(llama, ids, attention_mask=mask)
        assert calls == [3] * llama.config.num_hidden_layers
    with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET, backend="blockwise"):
        for row, text in enumerate(rows):
            alone = whole(llama, text)[0]
            torch.testing.assert_close(together[row, mask[row].bool()], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("backend", ["varlen", "flash"])
@pytest.mark.parametrize("method", ["dpe", "string", "dca"])
def test_generated_tokens_are_those_of_blockwise(llama, method, backend, cache) -> None:
    ids, mask = padded(texts(90, 71, 38), "left")
    found = []
    for name in (backend, "blockwise"):
        with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET, backend=name):
            found.append(
                llama.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=12,
                    min_new_tokens=12,
                    do_sample=False,
                    pad_token_id=0,
                    cache_implementation=cache,
                )
            )
    assert torch.equal(*found)


@pytest.mark.parametrize("method", ["self-extend", "dca"])
def test_gradients_of_padded_rows_are_those_of_the_reference(llama, method) -> None:
    found = []
    for backend in ("varlen", "reference"):
        with ropewalk.extend(llama.train(), POSITION_METHODS[method], target_length=TARGET, backend=backend):
            found.append(learn(llama, LENGTH, 71))
    assert_same(*found)


@pytest.mark.parametrize("backend", ["varlen", "blockwise"])
def test_mixed_precision_trains_in_the_lower_one(llama, monkeypatch, backend) -> None:
    """Under autocast queries and keys arrive in float32 and values in bfloat16."""
    if backend == "varlen":
        monkeypatch.setattr(EmulatedVarlen, "dtypes", (torch.bfloat16,))
    llama.train()
    with ropewalk.extend(llama, POSITION_METHODS["dpe"], target_length=TARGET, verify=False) as extension:
        exact, _ = learn(llama, LENGTH, 71)
        extension._seam.executor.backend = backend
        with torch.autocast("cpu", torch.bfloat16):
            mixed, gradients = learn(llama, LENGTH, 71)
    torch.testing.assert_close(mixed, exact, rtol=2e-3, atol=0)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


def test_rows_of_several_documents_are_not_put_together(llama, calls) -> None:
    first, second = texts(37, 44)
    positions = torch.cat((torch.arange(37), torch.arange(44)))[None]
    with ropewalk.extend(llama, POSITION_METHODS["self-extend"], target_length=TARGET, backend="varlen"):
        packed = whole(llama, torch.cat((first, second), 1), position_ids=positions)
        for part, row in zip(packed.split((37, 44), 1), (first, second), strict=True):
            torch.testing.assert_close(part, whole(llama, row), rtol=0, atol=1e-4)


def test_description_says_which_backends_were_passed_over_and_why(llama, monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(BACKENDS.get("compiled"), "unsupported", lambda plan, **what: "there is no compiler")
    with ropewalk.extend(llama, POSITION_METHODS["dpe"], target_length=TARGET) as extension:
        lines = extension.describe().splitlines()
    at = lines.index("  attention: backend blockwise")
    assert lines[at + 1] == "    not compiled: there is no compiler"
    assert lines[at + 2] == "    not triton, varlen, flash: it runs on CUDA, not on 'cpu'"
