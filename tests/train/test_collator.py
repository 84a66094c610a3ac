"""The trap that ruins training with skipped positions, on stock transformers, and a collator that stays out of it."""

import numpy as np
import pytest
import torch

from ropewalk.errors import TrainingError
from ropewalk.train.collator import IGNORED, Example, collate, require_mask
from ropewalk.train.positions import Drawn
from ropewalk.train.samplers import E2LLM, Clex, PoSE, RandPos
from tests.architectures import VOCABULARY, build

SAMPLERS = {
    "pose": PoSE(target_length=400),
    "randpos": RandPos(target_length=400),
    "e2-llm": E2LLM(pretrained_length=64, max_scale=8),
    "clex": Clex(pretrained_length=64, max_factor=8),
}


def example(sampler, length: int = 30, seed: int = 0) -> Example:
    generator = np.random.default_rng(seed)
    document = generator.integers(3, VOCABULARY, length + 20)
    return Example.of(document, sampler.draw(generator, length, len(document)))


def reach(model, batch: dict[str, torch.Tensor]) -> float:
    """How much the last logits of the first row change with its first token."""
    batch = {key: value for key, value in batch.items() if key not in ("labels", "time")}
    other = dict(batch, input_ids=batch["input_ids"].clone())
    other["input_ids"][0, 0] += 1
    with torch.no_grad():
        last = [model(**inputs, use_cache=False).logits[0, -1] for inputs in (batch, other)]
    return float((last[0] - last[1]).abs().max())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_stock_transformers_forgets_what_lies_before_a_jump_unless_a_mask_is_given(name, attention) -> None:
    model = build("llama")
    model.set_attn_implementation(attention)
    batch = collate([example(SAMPLERS[name])])
    assert reach(model, batch) > 1e-3
    bare = {key: value for key, value in batch.items() if key != "attention_mask"}
    assert reach(model, bare) == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_forward_without_a_mask_is_refused_where_positions_jump(name) -> None:
    batch = collate([example(SAMPLERS[name])])
    require_mask(batch["position_ids"], batch["attention_mask"])
    with pytest.raises(TrainingError, match=r"no attention mask.*collate"):
        require_mask(batch["position_ids"], None)
    require_mask(torch.arange(9)[None], None)
    require_mask(None, None)


def test_batch_holds_every_row_and_masks_the_padding() -> None:
    rows = [example(SAMPLERS["e2-llm"], length, seed) for seed, length in enumerate((30, 17, 24))]
    batch = collate(rows, padding=7)
    assert batch["position_ids"].dtype == torch.float64
    for row, one in enumerate(rows):
        count = len(one.ids)
        assert batch["attention_mask"][row].tolist() == [1] * count + [0] * (30 - count)
        assert batch["input_ids"][row, :count].tolist() == one.ids.tolist()
        assert (batch["input_ids"][row, count:] == 7).all() and (batch["labels"][row, count:] == IGNORED).all()
        assert batch["position_ids"][row, :count].tolist() == one.drawn.positions.tolist()
        assert (batch["position_ids"][row].diff() > 0).all()
        assert batch["time"][row] == one.drawn.time


def test_whole_positions_are_integers() -> None:
    assert collate([example(SAMPLERS["pose"])])["position_ids"].dtype == torch.int64


def test_only_tokens_behind_a_jump_in_the_text_have_no_label() -> None:
    document = np.arange(100)
    drawn = Drawn(np.array([0, 1, 2, 50, 51]), np.array([0.0, 1, 2, 200, 201]))
    labels = collate([Example.of(document, drawn)])["labels"][0].tolist()
    assert labels == [0, 1, 2, IGNORED, 51]


def test_padded_row_learns_as_it_does_alone() -> None:
    model = build("llama")
    rows = [example(SAMPLERS["pose"], length, seed) for seed, length in enumerate((30, 17))]
    together = collate(rows)
    del together["time"]
    logits = model(**together, use_cache=False).logits
    for row, one in enumerate(rows):
        alone = collate([one])
        del alone["time"]
        torch.testing.assert_close(
            logits[row, : len(one.ids)], model(**alone, use_cache=False).logits[0], rtol=0, atol=1e-4
        )


def test_batch_that_cannot_be_is_refused() -> None:
    with pytest.raises(TrainingError, match="no sequences"):
        collate([])
    with pytest.raises(TrainingError, match="nothing to predict"):
        collate([example(SAMPLERS["pose"], 2), Example(np.array([5]), Drawn(np.zeros(1, int), np.zeros(1)))])
    with pytest.raises(TrainingError, match="2 positions were drawn for 3 tokens"):
        collate([Example(np.array([5, 6, 7]), Drawn(np.arange(2), np.arange(2.0)))])
