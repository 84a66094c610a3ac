"""Decoders as embedders: the base model is extended as it is, and the last token of each text is its embedding."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

import ropewalk
from tests.architectures import build
from tests.models.batches import LENGTH, SPECIFICATIONS, TARGET, padded, texts

METHODS = ("self-extend", "rerope", "dpe", "string", "ntk", "yarn")
FAMILIES = ("mistral", "llama", "qwen3")


@torch.no_grad()
def embed(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """The hidden state of the last token of every row, of length 1, [B, width]."""
    hidden = model(ids, attention_mask=mask, use_cache=False)[0]
    last = (mask * torch.arange(mask.shape[1])).argmax(-1)
    return torch.nn.functional.normalize(hidden[torch.arange(len(ids)), last], dim=-1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_batch_has_the_embeddings_of_its_rows(family: str, method: str) -> None:
    model = build(family, AutoModel, **({"sliding_window": None} if family == "mistral" else {}))
    rows = texts(LENGTH, 13, 71)
    stock = embed(model, rows[0], torch.ones_like(rows[0]))
    with ropewalk.extend(model, SPECIFICATIONS[method], target_length=TARGET):
        alone = torch.cat([embed(model, row, torch.ones_like(row)) for row in rows])
        for side in ("left", "right"):
            torch.testing.assert_close(embed(model, *padded(rows, side)), alone, rtol=0, atol=1e-5)
    assert (alone[0] - stock[0]).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_base_model_has_the_hidden_states_of_the_causal_model(method: str) -> None:
    causal, base = build("mistral", sliding_window=None), build("mistral", AutoModel, sliding_window=None)
    base.load_state_dict(causal.model.state_dict())
    (ids,) = texts(LENGTH)
    with ropewalk.extend(causal, SPECIFICATIONS[method], target_length=TARGET), torch.no_grad():
        wanted = causal(ids, output_hidden_states=True).hidden_states[-1]
    with ropewalk.extend(base, SPECIFICATIONS[method], target_length=TARGET), torch.no_grad():
        assert torch.equal(base(ids).last_hidden_state, wanted)
