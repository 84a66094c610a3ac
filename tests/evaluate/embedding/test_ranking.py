"""Ranks and what is made of them, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from ropewalk.evaluate.embedding.ranking import accuracy_at_1, ndcg_at_10, ranks


@pytest.fixture
def scores():
    return np.random.default_rng(0).random((40, 25)).astype(np.float32)


def test_rank_is_the_place_in_descending_order(scores) -> None:
    golds = [query % 25 for query in range(40)]
    expected = [sorted(row, reverse=True).index(row[gold]) + 1 for row, gold in zip(scores, golds, strict=True)]
    assert ranks(scores, golds) == expected
    assert 1 in expected and max(expected) > 10


def test_ndcg_is_that_of_scikit_learn(scores) -> None:
    golds = [query % 25 for query in range(40)]
    judged = np.zeros_like(scores)
    judged[np.arange(40), golds] = 1
    ours = [ndcg_at_10(rank) for rank in ranks(scores, golds)]
    assert sum(ours) / 40 == pytest.approx(ndcg_score(judged, scores, k=10), abs=1e-9)


def test_ties_count_against_the_right_document() -> None:
    alike = np.array([[0.5, 0.5, 0.5 + 1e-8, 0.1]], dtype=np.float32)
    assert ranks(alike, [0]) == ranks(alike, [1]) == ranks(alike, [2]) == [3]
    assert ranks(alike, [3]) == [4]


def test_accuracy_is_of_the_first_place_alone() -> None:
    assert [accuracy_at_1(rank) for rank in (1, 2, 100)] == [1.0, 0.0, 0.0]
    assert (ndcg_at_10(1), ndcg_at_10(3), ndcg_at_10(11)) == (1.0, 0.5, 0.0)
