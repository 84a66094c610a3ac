"""Losses, gradients and packed texts under an extension."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import ropewalk
from ropewalk.errors import BackendError, ModelError
from tests.architectures import build
from tests.models.batches import LENGTH, POSITION_METHODS, TARGET, padded, texts, whole

METHODS = ("self-extend", "dpe")


@pytest.fixture
def llama() -> PreTrainedModel:
    return build("llama").train()


def learn(model: PreTrainedModel, *lengths: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients on a right-padded batch of texts, padding left out of the loss."""
    ids, mask = padded(texts(*lengths), "right")
    model.zero_grad()
    loss = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(found: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-6, atol=1e-6)
    assert all(gradient.abs().max() > 0 for gradient in wanted[1].values())
    for name, gradient in found[1].items():
        size = float(wanted[1][name].abs().max())
        torch.testing.assert_close(
            gradient, wanted[1][name], rtol=0, atol=2e-5 * size, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved-hooks", "reentrant"])
@pytest.mark.parametrize("method", METHODS)
def test_gradient_checkpointing_changes_nothing(llama: PreTrainedModel, method: str, reentrant: bool) -> None:
    with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET):
        plain = learn(llama, LENGTH, 71)
        renamed = getattr(llama, "activation_checkpointing_enable", None)  # its newer name
        (renamed or llama.gradient_checkpointing_enable)({"use_reentrant": reentrant})
        llama.enable_input_require_grads()
        assert_same(learn(llama, LENGTH, 71), plain)


@pytest.mark.parametrize("lengths", [(LENGTH,), (LENGTH, 71, 38)], ids=["alone", "padded"])
@pytest.mark.parametrize("method", [*METHODS, "dca", "rerope"])
def test_gradients_equal_those_of_the_reference(llama: PreTrainedModel, method: str, lengths: tuple[int, ...]) -> None:
    found = []
    for backend in ("blockwise", "reference"):
        with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET, backend=backend):
            found.append(learn(llama, *lengths))
    assert_same(*found)


def test_table_gradients_equal_those_of_the_reference(llama: PreTrainedModel) -> None:
    found = []
    for backend in ("auto", "reference"):
        with ropewalk.extend(llama, "yarn", target_length=TARGET, backend=backend):
            found.append(learn(llama, LENGTH, 71))
    assert_same(*found)


@pytest.mark.parametrize("method", METHODS)
def test_training_step_changes_weights_and_lowers_the_loss(llama: PreTrainedModel, method: str) -> None:
    before = {name: p.detach().clone() for name, p in llama.named_parameters()}
    optimizer = torch.optim.SGD(llama.parameters(), lr=1e-2)
    with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET):
        first, _ = learn(llama, LENGTH, 71)
        optimizer.step()
        second, _ = learn(llama, LENGTH, 71)
    assert second < first
    assert all(not torch.equal(p, before[name]) for name, p in llama.named_parameters())


def test_attention_dropout_is_refused_in_training_and_ignored_in_evaluation() -> None:
    model = build("llama", attention_dropout=0.1)
    (ids,) = texts(31)
    with ropewalk.extend(model, POSITION_METHODS["self-extend"], target_length=TARGET):
        assert whole(model, ids).isfinite().all()
        model.train()
        with pytest.raises(BackendError, match=r"attention dropout 0\.1"):
            model(ids, use_cache=False)


@pytest.mark.parametrize("method", ["self-extend", "dpe", "dca", "yarn"])
def test_packed_documents_equal_the_documents_alone(llama: PreTrainedModel, method: str) -> None:
    lengths = (37, 61, 19)
    rows = texts(*lengths)
    restarting = torch.cat([torch.arange(length) for length in lengths])[None]
    text = POSITION_METHODS.get(method, method)
    with ropewalk.extend(llama, text, target_length=TARGET):
        packed = whole(llama, torch.cat(rows, 1), position_ids=restarting)
        for part, row in zip(packed.split(lengths, 1), rows, strict=True):
            torch.testing.assert_close(part, whole(llama, row), rtol=0, atol=1e-4)


def test_packed_rows_of_a_batch_are_cut_each_in_their_own_way(llama: PreTrainedModel) -> None:
    cuts = ((37, 44), (50, 31), (81,))
    rows = [texts(*lengths, seed=i) for i, lengths in enumerate(cuts)]
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in cuts])
    with ropewalk.extend(llama, POSITION_METHODS["self-extend"], target_length=TARGET):
        packed = whole(llama, torch.cat([torch.cat(row, 1) for row in rows]), position_ids=positions)
        for i, documents in enumerate(rows):
            alone = torch.cat([whole(llama, document) for document in documents], 1)
            torch.testing.assert_close(packed[i : i + 1], alone, rtol=0, atol=1e-4)


def test_packed_gradients_equal_those_of_the_reference(llama: PreTrainedModel) -> None:
    lengths = (37, 61, 19)
    ids = torch.cat(texts(*lengths), 1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for backend in ("blockwise", "reference"):
        with ropewalk.extend(llama, POSITION_METHODS["dpe"], target_length=TARGET, backend=backend):
            llama.zero_grad()
            loss = llama(ids, position_ids=positions, labels=ids, use_cache=False).loss
            loss.backward()
            found.append((loss.detach(), {name: p.grad.clone() for name, p in llama.named_parameters()}))
    assert_same(*found)


@pytest.mark.parametrize("method", ["self-extend", "dpe"])
def test_skip_without_a_mask_is_a_document_border(llama: PreTrainedModel, method: str) -> None:
    """transformers reads a skip in position_ids as packing when no mask is given, which is why PoSE gives one."""
    first, second = texts(37, 44)
    ids = torch.cat((first, second), 1)
    positions = torch.cat((torch.arange(37), torch.arange(59, 103)))[None]
    with ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET):
        cut = whole(llama, ids, position_ids=positions)
        torch.testing.assert_close(cut[:, 37:], whole(llama, second), rtol=0, atol=1e-4)
        masked = whole(llama, ids, position_ids=positions, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(cut[:, :37], masked[:, :37], rtol=0, atol=1e-4)
        assert (cut[:, 37:] - masked[:, 37:]).abs().max() > 0.1


@pytest.mark.parametrize("steps", [(5, 5), (6, 4)], ids=["repeated", "backwards"])
def test_positions_that_do_not_grow_are_refused(llama: PreTrainedModel, steps: tuple[int, int]) -> None:
    (ids,) = texts(9)
    positions = torch.tensor([[0, 1, 2, *steps, 8, 9, 10, 11]])
    inputs: dict[str, Any] = {"position_ids": positions, "attention_mask": torch.ones_like(ids)}
    with (
        ropewalk.extend(llama, POSITION_METHODS["self-extend"], target_length=TARGET),
        pytest.raises(ModelError, match="position ids must grow"),
    ):
        whole(llama, ids, **inputs)
