import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.score import effective_length, macro
from ropewalk.evaluate.ruler.suite import RULER


def suite(share, tasks=RULER, n=50):
    """Scores of which `share` are 1."""
    return {task: [1.0] * round(share * n) + [0.0] * (n - round(share * n)) for task in tasks}


def test_macro_is_the_mean_of_the_tasks_whatever_their_samples():
    found = macro({"vt": [1.0, 0.5], "cwe": [0.0] * 10, "fwe": [1.0]})
    assert found.score == pytest.approx(100 * (0.75 + 0 + 1) / 3)
    assert found.low <= found.score <= found.high
    assert macro({"vt": [1.0] * 5}).low == 100


def test_interval_of_the_macro_is_that_of_the_binomial():
    found = macro(suite(0.5, n=100))
    half = 1.96 * 50 / (13 * 100) ** 0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_effective_length_of_all_thirteen_is_by_rulers_threshold():
    found = effective_length({4096: suite(0.96), 8192: suite(0.88), 16384: suite(0.84), 32768: suite(0.5)})
    assert (found.length, found.threshold) == (8192, 85.6)
    assert found.low in (4096, 8192) and found.high in (8192, 16384)
    assert list(found.macros) == [4096, 8192, 16384, 32768]
    assert found.macros[8192].score == pytest.approx(88)


def test_interval_of_the_effective_length_widens_near_the_threshold():
    near = effective_length({4096: suite(0.96), 8192: suite(0.86)})
    far = effective_length({4096: suite(0.96), 8192: suite(0.94)})
    assert (near.length, near.low, near.high) == (8192, 4096, 8192)
    assert (far.low, far.high) == (8192, 8192)


def test_effective_length_of_a_part_is_by_the_models_own_score():
    part = ("vt", "niah_single_1")
    found = effective_length({1024: suite(0.5, part), 2048: suite(0.48, part), 4096: suite(0.3, part)})
    assert found.length == 2048 and found.threshold == pytest.approx(42.5)
    assert found.rule == "85% of the stock score at 1024 tokens"


def test_method_that_spoils_short_texts_gets_no_lower_bar():
    part = ("vt",)
    spoiled = {1024: suite(0.5, part), 2048: suite(0.48, part)}
    assert effective_length(spoiled).length == 2048
    held = effective_length(spoiled, own=(512, suite(0.9, part)))
    assert (held.length, held.rule) == (None, "85% of the stock score at 512 tokens")
    assert held.threshold == pytest.approx(76.5)
    with pytest.raises(EvaluationError, match="same tasks"):
        effective_length(spoiled, own=(512, suite(0.9, ("cwe",))))


def test_longer_length_above_the_threshold_counts_after_one_below():
    assert effective_length({4096: suite(0.96), 8192: suite(0.8), 16384: suite(0.9)}).length == 16384


def test_model_that_knows_nothing_has_no_effective_length():
    found = effective_length({1024: suite(0.0, ("vt",)), 2048: suite(0.0, ("vt",))})
    assert (found.length, found.low, found.high) == (None, None, None)


def test_small_model_has_its_own_threshold_with_all_thirteen_tasks_too():
    found = effective_length({4096: suite(0.5), 8192: suite(0.46), 16384: suite(0.3)})
    assert (found.length, found.rule) == (8192, "85% of the stock score at 4096 tokens")
    method = {4096: suite(0.4), 8192: suite(0.9)}
    assert effective_length(method, own=(4096, suite(0.96))).rule == "85.6 over all thirteen tasks"
    assert effective_length(method, own=(4096, suite(0.5))).threshold == pytest.approx(42.5)


def test_same_seed_gives_the_same_intervals():
    scores = {4096: suite(0.9), 8192: suite(0.86)}
    assert effective_length(scores, seed=3) == effective_length(scores, seed=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: macro({}), "one task or more"),
        (lambda: macro({"vt": []}), "one sample or more"),
        (lambda: macro({"vt": [1.0], "qa_ledger": [1.0]}), "not RULER's"),
        (lambda: effective_length({}), "same tasks"),
        (lambda: effective_length({1024: {"vt": [1.0]}, 2048: {"cwe": [1.0]}}), "same tasks"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(call, message):
    with pytest.raises(EvaluationError, match=message):
        call()
