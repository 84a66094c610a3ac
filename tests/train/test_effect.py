"""CLEX trained on the small model at its window reads texts of four times the window, both tasks whole."""

import pytest
from torch import Generator
from transformers import LlamaForCausalLM

import ropewalk
from ropewalk.methods import CLEX
from ropewalk.train.run import train
from ropewalk.train.samplers import Clex
from ropewalk.train.settings import Settings
from tests.fixture import recipe

WINDOW, STEPS, BATCH = recipe.PRETRAINED_LENGTH, 300, 16


@pytest.mark.slow
def test_clex_trained_at_the_window_solves_both_tasks_at_four_times_it(tmp_path) -> None:
    rows = recipe.training_sequences(STEPS * BATCH, WINDOW, Generator().manual_seed(3)).tokens.numpy()
    method, sampler = CLEX(max_factor=16), Clex(pretrained_length=WINDOW, max_factor=16)
    settings = Settings(
        method=str(method),
        positions=str(sampler),
        length=WINDOW,
        target_length=16 * WINDOW,
        steps=STEPS,
        batch=BATCH,
        rate=1e-3,
        network_rate=5e-6,
        warmup=20,
        save_every=STEPS,
        seed=3,
    )
    model = LlamaForCausalLM.from_pretrained(recipe.TINY)
    result = train(model, method, sampler, list(rows), settings, tmp_path / "out")
    for length in (WINDOW, 4 * WINDOW):
        with ropewalk.extend(model, result.method, target_length=length):
            needle, local = recipe.accuracies(model, length, samples=64)
        assert needle >= 0.95 and local >= 0.97
    with ropewalk.extend(model, "clex", target_length=8 * WINDOW):
        _, local = recipe.accuracies(model, 8 * WINDOW, samples=16)
    assert local >= 0.97  # stock weights under the same table: .68
