"""The search on simulated scores whose truth is known, and the rule that it decides by."""

import math
import random

import pytest

from ropewalk.calibrate.axis import Axis, base_setting, varied
from ropewalk.calibrate.halving import grid, search, smallest
from ropewalk.calibrate.paper import detect, full_grid
from ropewalk.calibrate.rule import Rule, as_good, choose, paired

AXES = tuple(Axis("scales", f"group {index}", (1.0, 2.0, 4.0, 8.0), 4.0, (index, index + 1)) for index in range(3))
# Effect of every value, nats: group 0 is flat, group 1 breaks below 4, group 2 is best at 1.
TRUTH = ({}, {1.0: -6.0, 2.0: -2.0, 8.0: -1.0}, {1.0: 0.4, 2.0: 0.1, 8.0: -0.8})


class Simulated:
    """Measures settings: effects add up, documents differ in difficulty, facts are noisy."""

    def __init__(self, noise=0.05, facts=10):
        self.noise, self.facts = noise, facts
        self.asked = []
        self.scores = {}

    def __call__(self, wanted):
        for setting, document in wanted:
            if document not in self.scores.setdefault(setting, {}):
                self.asked.append((setting, document))
                rng = random.Random(f"{setting} {document}")
                hard = random.Random(document).gauss(-1.0, 0.5)
                effect = sum(TRUTH[index].get(value, 0.0) for index, value in enumerate(setting))
                noise = [rng.gauss(0.0, self.noise) for _ in range(self.facts)]
                self.scores[setting][document] = [hard + effect + each for each in noise]
        return self.scores


def test_search_finds_what_every_group_wants_and_prefers_the_smallest_scale():
    measure = Simulated()
    curves = search(AXES, measure, readings=200, rule=Rule())
    assert [curve.chosen for curve in curves] == [1.0, 4.0, 1.0]
    assert all(curve.decided for curve in curves)


@pytest.mark.parametrize("readings", [10, 13, 17, 40, 77, 200])
def test_search_keeps_to_its_readings_and_asks_nothing_twice(readings):
    measure = Simulated(noise=0.3)
    curves = search(AXES, measure, readings=readings, rule=Rule())
    assert len(measure.asked) <= readings and len(set(measure.asked)) == len(measure.asked)
    base = base_setting(AXES)
    for index, curve in enumerate(curves):
        for point in curve.points:
            documents = set(measure.scores[varied(AXES, index, point.value)])
            # Whatever a candidate was measured on, the base was too: every difference is one of pairs.
            assert documents <= set(measure.scores[base])
            if point.value != curve.axis.base:  # the base is read on for other groups
                assert point.documents == len(documents)


def test_hopeless_candidates_are_stopped_after_one_document():
    measure = Simulated()
    curves = search(AXES, measure, readings=200, rule=Rule())
    points = {point.value: point for point in curves[1].points}
    assert (points[1.0].documents, points[1.0].outcome) == (1, "stopped")
    assert points[4.0].documents > 1


def test_too_few_documents_keep_the_base():
    curves = search(AXES, Simulated(), readings=len(grid(AXES)), rule=Rule())
    assert [(curve.chosen, curve.decided) for curve in curves] == [(4.0, False)] * 3


def test_smallest_budget_decides_every_axis():
    needed = smallest(AXES, Rule(documents=2))
    assert needed == 10 + 4
    measure = Simulated(noise=1.0)
    assert all(curve.decided for curve in search(AXES, measure, readings=needed, rule=Rule()))
    assert len(measure.asked) == needed


def test_search_that_is_killed_and_begun_again_decides_the_same():
    whole = Simulated(noise=0.3)
    unbroken = search(AXES, whole, readings=60, rule=Rule())
    for stop in (1, 9, 23, 40):
        known = Simulated(noise=0.3)
        known(list(whole.asked[:stop]))
        before = len(known.asked)
        assert search(AXES, known, readings=60, rule=Rule()) == unbroken
        assert known.asked[:before] == whole.asked[:stop] and sorted(known.asked) == sorted(whole.asked)


def test_flat_curve_takes_the_smallest_and_a_clear_one_the_best():
    axis = Axis("scales", "one", (1.0, 2.0, 4.0), 4.0, (0, 1))
    rule = Rule(margin=0.1)

    def at(*documents):
        return dict(enumerate([[value] * 3 for value in documents]))

    flat = {1.0: at(-0.30, -0.20), 2.0: at(-0.25, -0.21), 4.0: at(-0.24, -0.22)}
    assert choose(axis, [1.0, 2.0, 4.0], flat, rule) == 1.0
    # Within the margin of 0.1, but surely worse: the error of the difference is zero.
    assert choose(axis, [1.0, 4.0], {1.0: at(-0.35, -0.25), 4.0: at(-0.30, -0.20)}, rule) == 4.0
    # Within two standard errors, but beyond the margin.
    assert choose(axis, [1.0, 4.0], {1.0: at(-0.9, -0.1), 4.0: at(-0.3, -0.2)}, rule) == 4.0


def test_difference_is_paired_by_document_and_says_how_many():
    first, second = {0: [-1.0, -2.0], 1: [-3.0, -3.0], 2: [0.0, 0.0]}, {0: [-0.5, -2.0], 1: [-2.0, -3.5]}
    found = paired(first, second)
    assert (found.mean, found.documents) == (0.25, 2)
    assert found.error == pytest.approx(0.0)
    one = paired({0: [-1.0, -2.0, -3.0]}, {0: [-1.0, -1.0, -1.0]})
    assert (one.mean, one.documents) == (1.0, 1) and one.error == pytest.approx(1 / math.sqrt(3))
    assert paired({0: [-1.0]}, {0: [-2.0]}).error == math.inf
    assert as_good(Rule(margin=0.5, standard_errors=2.0), second, second)


def test_authors_protocol_reads_the_whole_grid_and_takes_the_best():
    measure = Simulated()
    assert full_grid(AXES) == 10
    curves = detect(AXES, measure, documents=20)
    assert len(measure.asked) == 200
    assert [curve.chosen for curve in curves][1:] == [4.0, 1.0]
    tied = detect(AXES[:1], lambda wanted: {each: {0: [1.0], 1: [0.0]} for each, _ in wanted}, documents=2)
    assert tied[0].chosen == 1.0 and {point.outcome for point in tied[0].points} == {"chosen", "as good"}
