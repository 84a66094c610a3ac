"""`generate` in all its modes gives the tokens that a model without cache gives, written out one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, set_seed

import ropewalk
from tests.architectures import build
from tests.models.batches import POSITION_METHODS, TARGET, padded, texts

NEW = 13
METHODS = {name: POSITION_METHODS[name] for name in ("self-extend", "dpe", "string", "dca")} | {"yarn": "yarn"}
PAD = 0  # never generated: an assistant's generate would take it for padding in the middle of the text
GREEDY: dict[str, Any] = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "eos_token_id": None,
    "pad_token_id": PAD,
    "suppress_tokens": [PAD],
}


@pytest.fixture(scope="module")
def drafter() -> PreTrainedModel:
    """Another model that guesses tokens: the same family, one layer."""
    return build("llama", num_hidden_layers=1)


@pytest.fixture(params=METHODS)
def extended(request: pytest.FixtureRequest, llama: PreTrainedModel) -> Any:
    with ropewalk.extend(llama, METHODS[request.param], target_length=TARGET, verify=False):
        yield llama


@torch.no_grad()
def recomputed(model: PreTrainedModel, prompt: Tensor, new: int = NEW) -> Tensor:
    """Greedy continuation [new] of one prompt [1, T], every step a whole forward without cache."""
    ids = prompt
    for _ in range(new):
        logits = model(ids, use_cache=False).logits[:, -1:]
        logits[..., PAD] = -torch.inf
        ids = torch.cat((ids, logits.argmax(-1)), 1)
    return ids[0, prompt.shape[1] :]


def test_greedy_equals_recomputation(extended: PreTrainedModel) -> None:
    (prompt,) = texts(101)
    assert torch.equal(extended.generate(prompt, **GREEDY)[0, 101:], recomputed(extended, prompt))


def test_left_padded_batch_equals_recomputed_rows(extended: PreTrainedModel) -> None:
    rows = texts(97, 71, 33)
    ids, mask = padded(rows, "left")
    out = extended.generate(ids, attention_mask=mask, **GREEDY)[:, ids.shape[1] :]
    for got, row in zip(out, rows, strict=True):
        assert torch.equal(got, recomputed(extended, row))


@pytest.mark.parametrize(
    "mode",
    [
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 23},
        {"prompt_lookup_num_tokens": 3},
        {"use_cache": False},
    ],
    ids=lambda mode: next(iter(mode)),
)
def test_mode_gives_the_greedy_tokens(extended: PreTrainedModel, mode: dict[str, Any]) -> None:
    (prompt,) = texts(95)
    prompt = torch.cat((prompt, prompt[:, 40:47]), 1)  # something for prompt lookup to find
    assert torch.equal(extended.generate(prompt, **GREEDY, **mode)[0, 102:], recomputed(extended, prompt))


def test_static_cache_with_left_padding_gives_the_greedy_tokens(extended: PreTrainedModel) -> None:
    rows = texts(83, 65)
    ids, mask = padded(rows, "left")
    out = extended.generate(ids, attention_mask=mask, cache_implementation="static", **GREEDY)[:, ids.shape[1] :]
    for got, row in zip(out, rows, strict=True):
        assert torch.equal(got, recomputed(extended, row))


def test_assisted_decoding_gives_the_greedy_tokens(extended: PreTrainedModel, drafter: PreTrainedModel) -> None:
    (prompt,) = texts(77)
    with ropewalk.extend(drafter, METHODS["self-extend"], target_length=TARGET, verify=False):
        out = extended.generate(prompt, assistant_model=drafter, **GREEDY)
    assert torch.equal(out[0, 77:], recomputed(extended, prompt))


def test_assisted_by_itself_accepts_guesses(extended: PreTrainedModel, llama: PreTrainedModel) -> None:
    """A drafter with the same weights guesses right, so several tokens are verified in one cached forward."""
    (prompt,) = texts(77)
    out = extended.generate(prompt, assistant_model=llama, **GREEDY)
    assert torch.equal(out[0, 77:], recomputed(extended, prompt))


def test_sampling_with_a_seed_equals_sampling_without_cache(extended: PreTrainedModel) -> None:
    rows = texts(93, 41)
    ids, mask = padded(rows, "left")
    settings = GREEDY | {"do_sample": True, "top_k": 20, "temperature": 1.3}
    found = []
    for cache in (True, False):
        set_seed(7)
        found.append(extended.generate(ids, attention_mask=mask, use_cache=cache, **settings))
    assert torch.equal(found[0], found[1])


def test_beams_and_several_sequences_equal_beams_without_cache(extended: PreTrainedModel) -> None:
    rows = texts(93, 41)
    ids, mask = padded(rows, "left")
    settings = GREEDY | {"num_beams": 3, "num_return_sequences": 2}
    cached = extended.generate(ids, attention_mask=mask, **settings)
    assert cached.shape == (4, 93 + NEW)
    assert torch.equal(cached, extended.generate(ids, attention_mask=mask, use_cache=False, **settings))


def test_beams_keep_the_pins_of_their_prompt(llama: PreTrainedModel) -> None:
    rows = texts(93, 41)
    ids, mask = padded(rows, "left")
    settings = GREEDY | {"num_beams": 3, "num_return_sequences": 2}
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, verify=False):
        together = llama.generate(ids, attention_mask=mask, **settings)[:, 93:]
        alone = torch.cat([llama.generate(row, **settings)[:, row.shape[1] :] for row in rows])
    assert torch.equal(together, alone)


def test_cache_continued_by_hand_equals_one_prompt(extended: PreTrainedModel) -> None:
    """A second turn on the cache of the first."""
    (prompt,) = texts(98)
    with torch.no_grad():
        cache = extended(prompt[:, :59], use_cache=True).past_key_values
    out = extended.generate(prompt, past_key_values=cache, **GREEDY)
    assert torch.equal(out[0, 98:], recomputed(extended, prompt))
