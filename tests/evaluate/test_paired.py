import math
import random

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.paired import holm, mcnemar, newcombe, paired_difference, samples_needed, sign_flips
from ropewalk.evaluate.statistics import wilson


def pairs(both, lost, gained, neither):
    """First and second scores of a 2 x 2 table."""
    first = [1.0] * (both + lost) + [0.0] * (gained + neither)
    return first, [1.0] * both + [0.0] * lost + [1.0] * gained + [0.0] * neither


# By hand: 2 (1 + 8) / 2^8, 2 (1 + 12 + 66) / 2^12, 2 / 2^5; nothing differs; as many either way.
@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(1, 7, 18 / 256), (10, 2, 158 / 4096), (5, 0, 2 / 32), (0, 0, 1.0), (4, 4, 1.0)]
)
def test_mcnemar_equals_the_doubled_tail(wins, losses, p):
    assert mcnemar(wins, losses) == mcnemar(losses, wins) == p


def test_holm_equals_hand_values():
    # 0.005 x 4, 0.01 x 3, 0.03 x 2; 0.04 x 1 may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


# Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014): airway hyper-responsiveness before and after.
# Altman et al., Statistics with Confidence (2000), p. 52.
@pytest.mark.parametrize(
    ("table", "low", "high"), [((1, 1, 7, 12), 0.026, 0.507), ((14, 5, 0, 22), -0.226, -0.011)], ids=str
)
def test_newcombe_equals_published_examples(table, low, high):
    made = newcombe(*pairs(*table))
    assert (round(made.low, 3), round(made.high, 3)) == (low, high)


def test_newcombe_of_perfect_scores_is_as_wide_as_wilson():
    made = newcombe([1.0] * 10, [1.0] * 10)
    assert made.high == pytest.approx(1 - wilson(10, 10).low) and made.low == -made.high


def test_sign_flips_equals_hand_counts():
    # |sum| of the 8 patterns of 1, 2, 3: 6, 6 and six smaller ones.
    assert sign_flips([1.0, 2.0, 3.0]) == 2 / 8
    # 2 + 1 - 1 = 2: patterns with |sum| >= 2 are all but the two with |2 - 1 - 1| = 0.
    assert sign_flips([2.0, 1.0, -1.0]) == 6 / 8
    assert sign_flips([0.0, 0.0]) == 1.0
    # Rounding must not make a tie smaller than itself: every pattern of equal sums with as many signs is as large.
    assert sign_flips([0.1, 0.2, -0.3 + 0.6]) == 2 / 8


def test_drawn_sign_flips_agree_with_the_binomial_tail():
    # Twenty documents, fourteen better by one: the exact p is McNemar's.
    p = sign_flips([1.0] * 14 + [-1.0] * 6)
    assert p == pytest.approx(mcnemar(14, 6), abs=4 * math.sqrt(0.115 * 0.885 / 10_000))
    assert sign_flips([1.0] * 40) == 1 / 10_001


def test_binary_documents_are_compared_by_mcnemar():
    first, second = pairs(3, 1, 7, 4)
    made = paired_difference(first, second, range(15))
    assert (made.mean, made.p, made.test) == (pytest.approx(6 / 15), mcnemar(7, 1), "mcnemar exact")
    assert (made.n, made.documents, made.interval.made_by) == (15, 15, "paired bootstrap over documents")
    assert 0 < made.interval.low < 6 / 15 < made.interval.high


def test_documents_of_several_facts_are_drawn_whole():
    # All ten facts of one document gained, none of the other: of four sign patterns all are as large.
    made = paired_difference([0.0] * 20, [1.0] * 10 + [0.0] * 10, [0] * 10 + [1] * 10)
    assert (made.mean, made.interval.low, made.interval.high) == (0.5, -1.0, 1.0)
    assert (made.p, made.test, made.n, made.documents) == (1.0, "sign flips of documents", 20, 2)


def test_pairing_removes_the_difficulty_of_the_prompts():
    rng = random.Random(0)
    hard = [rng.uniform(0, 8) for _ in range(30)]
    easier = [loss - 0.1 + rng.gauss(0, 0.05) for loss in hard]
    made = paired_difference(hard, easier, range(30))
    assert made.interval.low < -0.1 < made.interval.high < 0
    assert made.p < 0.001
    assert made == paired_difference(hard, easier, range(30))


def test_single_document_takes_its_samples_as_independent():
    facts = paired_difference(*pairs(1, 1, 7, 12), [0] * 21)
    assert (facts.p, facts.test, facts.documents) == (mcnemar(7, 1), "mcnemar exact", 1)
    assert facts.interval == newcombe(*pairs(1, 1, 7, 12))
    losses = paired_difference([3.0, 3.5, 4.0], [2.9, 3.2, 4.0], ["a"] * 3)
    assert losses.test == "sign flips of samples" and losses.p == 4 / 8
    assert losses.interval.made_by == "paired t over samples"


def test_ten_of_ten_against_ten_of_ten_has_a_width():
    made = paired_difference([1.0] * 10, [1.0] * 10, range(10))
    assert (made.mean, made.p, made.interval.made_by) == (0.0, 1.0, "newcombe paired")
    assert made.interval.high > 0.25


def test_equal_gains_of_shares_have_a_width():
    made = paired_difference([0.0, 0.0], [0.9, 0.9], range(2))
    # By hand: Wilson's intervals of 1.8 hits of 2 (0.279 to 0.995) and of none (0 to 0.658), squared and added.
    assert (round(made.interval.low, 3), round(made.interval.high, 3)) == (-0.005, 0.995)
    losses = paired_difference([3.0, 2.0], [3.5, 2.5], range(2))
    assert losses.interval.made_by == "paired t over documents"


@pytest.mark.parametrize(
    ("first", "second", "clusters"), [([], [], []), ([1.0], [1.0, 0.0], [0, 1]), ([1.0], [1.0], [])]
)
def test_scores_that_do_not_pair_up_are_refused(first, second, clusters):
    with pytest.raises(EvaluationError, match="make no pairs"):
        paired_difference(first, second, clusters)


def test_samples_needed_equals_a_hand_value():
    # (1.959964 + 0.841621)^2 x 2 x 0.25 x 0.4 / 0.01 = 156.98
    assert samples_needed(0.1, 0.5, 0.6) == samples_needed(-0.1, 0.5, 0.6) == 157
    assert samples_needed(0.1, 0.5, 0.6, power=0.9) == 211  # (1.959964 + 1.281552)^2 x 20 = 210.15


# spec/evaluation.md, section 7: smallest differences found with 80% power, points rounded to 0.1.
@pytest.mark.parametrize(
    ("n", "p", "rho", "points"),
    [
        *[(100, 0.5, 0, 19.8), (500, 0.5, 0, 8.9), (1000, 0.5, 0, 6.3)],
        *[(100, 0.9, 0, 11.9), (500, 0.9, 0, 5.3), (1000, 0.9, 0, 3.8)],
        *[(100, 0.5, 0.6, 12.5), (500, 0.5, 0.6, 5.6), (1000, 0.5, 0.6, 4.0)],
    ],
)
def test_samples_needed_equals_the_table_of_detectable_differences(n, p, rho, points):
    sd = math.sqrt(p * (1 - p))
    assert samples_needed((points + 0.05) / 100, sd, rho) <= n <= samples_needed((points - 0.05) / 100, sd, rho)


@pytest.mark.parametrize("change", [{"difference": 0}, {"sd": 0}, {"rho": 1}, {"power": 1}, {"alpha": 0}])
def test_samples_needed_refuses_what_has_no_answer(change):
    with pytest.raises(EvaluationError, match="no number of samples for"):
        samples_needed(**{"difference": 0.1, "sd": 0.5, "rho": 0.5} | change)
