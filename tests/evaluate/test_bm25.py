import math

import numpy as np
import pytest

from ropewalk.evaluate.bm25 import bm25, words


def test_scores_are_those_of_a_hand_worked_case():
    # Three texts of 3, 5 and 1 words, 3 on average; k1 = 1.5, b = 0.75.
    scores = bm25(["b a", "d"], ["A b B.", "a c, c c c!", "d"])
    idf_a, idf_b, idf_d = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5), math.log(1 + 2.5 / 1.5)
    expected = [
        [idf_b * 2 / (2 + 1.5) + idf_a * 1 / (1 + 1.5), idf_a * 1 / (1 + 1.5 * (0.25 + 0.75 * 5 / 3)), 0.0],
        [0.0, 0.0, idf_d * 1 / (1 + 1.5 * (0.25 + 0.75 / 3))],
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_text_and_search_meet_whatever_their_case_and_marks():
    assert words("Sarah's favorite; COLOR\n") == ["sarah", "s", "favorite", "color"]


@pytest.mark.parametrize("searches", [["zebra"], ["..."], ["zebra", "none"]])
@pytest.mark.parametrize("texts", [["a b", "c"], ["\n\n", "..."]])
def test_nothing_shared_scores_nothing(searches, texts):
    np.testing.assert_array_equal(bm25(searches, texts), np.zeros((len(searches), len(texts))))
