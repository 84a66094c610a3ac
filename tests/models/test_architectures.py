"""Every family of `tests.architectures`: extended and restored exactly, or refused by name."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import ropewalk
from ropewalk.errors import ModelError
from ropewalk.models.doctor import diagnose
from tests.architectures import PRETRAINED_LENGTH, REFUSED, VOCABULARY, WORKS

METHOD = "self-extend:group=2,window=8"
TARGET_LENGTH = 96  # within Self-Extend's reach of (64 - 8) * 2 + 8 = 120


def _tokens(length: int) -> Tensor:
    """Two rows of tokens without the special ones, the first padded by three on the left: ids and mask, [2, B=2, T]."""
    ids = torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    return torch.stack((ids, mask))


@torch.no_grad()
def _logits(model: PreTrainedModel, length: int) -> Tensor:
    """Logits of all but the last token as prefill and of the last as a cached step, at tokens that are not padding."""
    ids, mask = _tokens(length)
    prefill = model(ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True)
    step = model(ids[:, -1:], attention_mask=mask, past_key_values=prefill.past_key_values)
    return torch.cat((prefill.logits, step.logits), dim=1)[mask.bool()]


@pytest.mark.parametrize("family", WORKS)
def test_extended_model_runs_and_removed_extension_is_the_stock_model(family: str) -> None:
    model = WORKS[family]()
    stock = _logits(model, 23)
    assert stock.isfinite().all()
    names = list(model.state_dict())
    with ropewalk.extend(model, METHOD, target_length=TARGET_LENGTH):
        assert list(model.state_dict()) == names
        assert _logits(model, PRETRAINED_LENGTH + 11).isfinite().all()
    assert list(model.state_dict()) == names
    assert torch.equal(_logits(model, 23), stock)


@pytest.mark.parametrize("family", WORKS)
def test_identity_through_the_seam_is_bit_equal(family: str) -> None:
    found = diagnose(WORKS[family]())
    assert (found["equal"], found["max_abs_logit_difference"]) == (True, 0.0)


@pytest.mark.parametrize("family", REFUSED)
def test_family_that_cannot_work_is_refused_by_name(family: str) -> None:
    build, reason = REFUSED[family]
    model = build()
    stock = _logits(model, 23)
    with pytest.raises(ModelError, match=reason) as refusal:
        ropewalk.extend(model, METHOD, target_length=TARGET_LENGTH)
    assert model.config.model_type in str(refusal.value)
    assert torch.equal(_logits(model, 23), stock), "a refusal leaves the model as it was"


def test_table_covers_thirty_families() -> None:
    assert len({family.split("-")[0] for family in WORKS}) >= 30
