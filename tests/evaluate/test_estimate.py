from dataclasses import replace

import pytest

from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.estimate import estimate, known_seconds, operations
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import sweep
from ropewalk.evaluate.unit import Setup, list_units
from tests.evaluate.samples import sample


def test_operations_are_those_of_the_matrices_and_of_the_causal_pairs(model):
    hidden, wide, kv, vocabulary = 32, 64, 16, model.config.vocab_size
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * wide + 2 * hidden  # with two norms
    matrices = 2 * layer + hidden + vocabulary * hidden
    assert operations(model, 1000) == pytest.approx(2 * matrices * 1000 + 4 * 2 * 32 * 1000 * 1000 / 2)


def test_estimate_counts_what_is_left_and_learns_from_the_store(model, tokenizer, tmp_path):
    units = list_units(["perplexity", "passkey"], ["none", "yarn"], [512, 600], samples=2, seeds=[0])
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as bench, Store(tmp_path / "r.db") as store:
        seen = []
        sweep(bench, units, store, before=lambda left, remarks: seen.append(left))
        assert (seen[0].samples, seen[0].tokens, seen[0].measured) == (16, 8 * 512 + 8 * 600, 0)
        assert seen[0].seconds > 0 and seen[0].bytes > 0
        more = list_units(["perplexity"], ["none", "dca"], [512, 600], samples=3, seeds=[0])
        sweep(bench, more, store, before=lambda left, remarks: seen.append(left))
        # Of the stock model the third document of either length is left, and it is known; dca is not.
        assert (seen[1].samples, seen[1].measured) == (8, 2)


def test_known_samples_are_reckoned_by_what_they_took(model, tokenizer):
    units = list_units(["perplexity"], ["none"], [600], samples=3, seeds=[0])
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as bench:
        assert estimate(bench, units, {("perplexity", 600, "none"): 7.0}).seconds == 21.0
        assert estimate(bench, [], {}).samples == 0


def test_sliding_windows_are_reckoned_one_by_one(model, tokenizer):
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as bench:
        once, sliding = (
            estimate(bench, list_units([task], ["none"], [600], samples=1, seeds=[0]), {})
            for task in ("perplexity", "perplexity-sliding")
        )
    assert sliding.seconds > 3 * once.seconds  # 17 windows, by a rate that is timed anew


def test_stored_seconds_are_means_by_task_length_and_method(tmp_path):
    with Store(tmp_path / "r.db") as store:
        for document, seconds in enumerate((1.0, 3.0)):
            store.append(replace(sample(document), seconds=seconds))
        assert known_seconds(store, "tiny") == {("needle", 4096, "none"): 2.0}
        assert known_seconds(store, "other") == {}
