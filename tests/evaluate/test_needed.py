import random
from statistics import NormalDist, fmean

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.needed import documents_needed


def test_needed_documents_find_the_difference_as_often_as_promised():
    """Simulation: with that many documents, a z-test finds a true difference of 0.2 in about 80% of 4000 runs."""
    rng = random.Random(0)

    def draw(shift):
        shared = rng.gauss(0, 0.4)
        return [shared + rng.gauss(0, 0.3)], [shared + rng.gauss(shift, 0.3)]

    pairs = [draw(0.2) for _ in range(4000)]
    n = documents_needed([a for a, _ in pairs], [b for _, b in pairs], 0.2)
    spread = (0.3**2 + 0.3**2) ** 0.5
    bound = NormalDist().inv_cdf(0.975) * spread / n**0.5
    found = sum(abs(fmean(b[0] - a[0] for a, b in (draw(0.2) for _ in range(n)))) > bound for _ in range(4000))
    assert 0.76 < found / 4000 < 0.84


def test_pairs_that_rise_and_fall_together_need_fewer_documents():
    first = [[0.1], [0.5], [0.9], [0.3]]
    alike, crossed = [[0.2], [0.5], [1.0], [0.5]], [[1.0], [0.5], [0.2], [0.5]]
    assert documents_needed(first, alike, 0.1) < documents_needed(first, crossed, 0.1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([[1.0]], [[0.0]], "measure two or more"),
        ([[1.0], [1.0]], [[0.0], [0.0]], "same score"),
        ([[1.0], [0.0]], [[2.0], [1.0]], "same amount"),
    ],
)
def test_what_tells_nothing_is_refused(first, second, message):
    with pytest.raises(EvaluationError, match=message):
        documents_needed(first, second, 0.1)
