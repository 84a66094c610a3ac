from dataclasses import replace

import pytest

from ropewalk.evaluate.report.details import TENTHS, depth_map, empty_answers, loss_by_position, trained_window
from tests.evaluate.samples import sample


def with_details(scores=(1.0,), *, control="", **details):
    return replace(sample(0, scores, control=control), reached=1000, details=details)


def test_depth_of_a_fact_is_what_stands_before_it():
    answers = [{"retrieved": hit, "distance": distance} for hit, distance in ((True, 990), (False, 960), (True, 10))]
    # More depths than a grid has: shown by tenths.
    rows = [with_details([1.0, 0.0, 1.0], answers=answers)]
    rows += [with_details([0.0], depths=[0.02 + i / 100]) for i in range(12)]
    found = depth_map(rows)
    assert found.depths == TENTHS
    # 0.01 and 0.04 of the answers, and 0.02 to 0.09 of the others.
    assert found.cells[0, 4096] == (pytest.approx(1 / 10), 10)
    assert found.cells[9, 4096] == (1.0, 1)


def test_depths_of_a_grid_are_rows_of_their_own_and_depths_unknown_are_left_out():
    answers = [{"retrieved": hit, "distance": 7} for hit in (True, False, True, False)]
    found = depth_map([with_details([1.0, 0.0, 1.0, 0.0], depths=[0.0, 0.5, 1.0, None], answers=answers)] * 2)
    assert found.depths == ("0%", "50%", "100%")
    assert found.cells == {(0, 4096): (1.0, 2), (1, 4096): (0.0, 2), (2, 4096): (1.0, 2)}


def test_several_depths_of_one_score_and_shortened_prompts_have_no_map():
    assert depth_map([with_details([0.5], depths=[0.1, 0.9])]) is None
    assert depth_map([with_details([1.0], depths=[0.1], control="needle-only")]) is None
    assert depth_map([]) is None


def test_loss_by_position_is_the_mean_over_documents():
    rows = [with_details(loss_by_position=[[0, 1024, 3.0], [1024, 2048, 2.0]]), with_details()]
    rows += [with_details(loss_by_position=[[0, 1024, 5.0]])]
    rows += [with_details(loss_by_position=[[0, 1024, 99.0]], control="truncate-middle")]
    assert loss_by_position(rows) == [(0, 1024, 4.0, 2), (1024, 2048, 2.0, 1)]


def test_last_stretches_of_documents_of_one_length_are_one():
    rows = [
        with_details(loss_by_position=[[0, 1024, 3.0], [1024, last, loss]]) for last, loss in ((2019, 2.0), (2022, 4.0))
    ]
    assert loss_by_position(rows) == [(0, 1024, 3.0, 2), (1024, 2022, 3.0, 2)]


def test_trained_window_is_what_all_rows_agree_on():
    control = with_details(control="needle-only", window=8192)
    assert trained_window([with_details(), control, with_details(window=77)]) == 8192
    assert trained_window([control, with_details(pretrained_length=2048)]) is None
    assert trained_window([with_details()]) is None


def test_empty_answers_are_counted_where_answers_are_whole():
    assert empty_answers(with_details(prediction=" \n")) == (1, 1)
    assert empty_answers(with_details(said=[{"text": "7"}, {"text": ""}])) == (1, 2)
    assert empty_answers(with_details(answers=[{"text": ""}])) == (0, 0)
