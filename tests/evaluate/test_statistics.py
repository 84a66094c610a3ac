import random

import pytest
from scipy.stats import ttest_1samp

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.statistics import interval, resampled, wilson


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombes_table(successes, n, low, high):
    made = wilson(successes, n)
    assert (round(made.low, 4), round(made.high, 4)) == (low, high)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_fraction(successes, n):
    with pytest.raises(EvaluationError, match="make no fraction"):
        wilson(successes, n)


def test_bootstrap_is_deterministic_and_holds_the_mean():
    scores, clusters = [0.1 * (i % 7) for i in range(60)], [i // 6 for i in range(60)]
    assert resampled(scores, clusters) == resampled(scores, clusters)
    assert resampled(scores, clusters).low < sum(scores) / 60 < resampled(scores, clusters).high
    assert resampled(scores, clusters).made_by == "bootstrap over documents"


def test_bootstrap_draws_whole_documents():
    # Six documents, all facts found in three of them: ten facts of a document are one draw, not ten.
    scores, clusters = [float(i < 30) for i in range(60)], [i // 10 for i in range(60)]
    whole, apart = resampled(scores, clusters), resampled(scores, range(60), "samples")
    assert whole.high - whole.low > 2.5 * (apart.high - apart.low)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_documents_get_students_t(n):
    rng = random.Random(n)
    means = [rng.gauss(3, 1) for _ in range(n)]
    made = interval([m + d for m in means for d in (-0.5, 0.5)], [i for i in range(n) for _ in range(2)])
    wanted = ttest_1samp(means, 0).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((wanted.low, wanted.high))
    assert made.made_by == "t over documents"


@pytest.mark.parametrize("n", [6, 10, 40])
def test_expanded_percentiles_are_as_wide_as_students_t(n):
    rng = random.Random(n)
    means = [rng.gauss(3, 1) for _ in range(n)]
    made = resampled(means, range(n), seed=1)
    wanted = ttest_1samp(means, 0).confidence_interval(0.95)
    assert made.high - made.low == pytest.approx(wanted.high - wanted.low, rel=0.15)


def test_shares_stay_within_their_range():
    made = interval([1.0] * 10 + [0.0] * 10, [0] * 10 + [1] * 10)
    assert (made.low, made.high, made.made_by) == (0.0, 1.0, "t over documents")


def test_one_sample_has_no_interval():
    made = interval([3.0], [0])
    assert (made.low, made.high, made.made_by) == (3.0, 3.0, "none: one of the samples")


def test_interval_of_fractions_in_one_document_is_wilson():
    assert interval([1.0, 0.0, 1.0], [0, 0, 0]) == wilson(2, 3)


def test_interval_of_a_perfect_score_has_width():
    made = interval([1.0] * 20, [0] * 10 + [1] * 10)
    assert made == wilson(20, 20)
    assert made.low < 0.85


@pytest.mark.parametrize("documents", [1, 2, 5])
def test_interval_of_one_share_in_all_documents_has_width(documents):
    made = interval([0.25] * documents, range(documents))
    assert made == wilson(0.25 * documents, documents)
    assert made.low < 0.25 < made.high and made.high - made.low > 0.5


def test_interval_of_other_scores_in_one_document_resamples_them():
    made = interval([3.0, 3.5, 4.0, 2.5], [0, 0, 0, 0])
    assert made.made_by == "t over samples"
    assert made.low < 3.25 < made.high


def test_interval_over_documents_says_so():
    assert interval([3.0, 3.5, 4.0, 2.0], [0, 0, 1, 1]).made_by == "t over documents"


def test_interval_without_scores_is_refused():
    with pytest.raises(EvaluationError, match="no samples"):
        interval([], [])
