import numpy as np
import pytest

from ropewalk.calibrate.evolution_strategy import CMA
from ropewalk.calibrate.minimise import minimise
from ropewalk.calibrate.spend import divide
from ropewalk.errors import EvaluationError

WANTED = (0.2, 0.7, 0.4)


def decode(point):
    return tuple(round(float(value), 3) for value in point)


def price(settings):
    return [sum((a - b) ** 2 for a, b in zip(one, WANTED, strict=True)) for one in settings]


def test_cma_finds_a_minimum_and_begins_at_its_start():
    asked = []
    found = minimise(CMA([0.5] * 3, decode, seed=1), lambda new: (asked.extend(new), price(new))[1], evaluations=300)
    assert asked[0] == (0.5, 0.5, 0.5)
    assert found.setting == pytest.approx(WANTED, abs=0.01)
    assert len(asked) == len(set(asked)) == found.evaluated <= 300


def test_cma_draws_from_a_generator_of_its_own():
    def disturbed(settings):
        np.random.rand(7)
        return price(settings)

    runs = [minimise(CMA([0.5] * 3, decode, seed=2), each, evaluations=120) for each in (price, disturbed)]
    assert runs[0] == runs[1]
    assert minimise(CMA([0.5] * 3, decode, seed=3), price, evaluations=120) != runs[0]


def test_search_told_its_first_costs_again_goes_on_as_before():
    known = {}

    def remembered(settings, limit):
        for one in settings:
            if one not in known:
                if len(known) == limit:
                    raise KeyboardInterrupt
                known[one] = price([one])[0]
        return [known[one] for one in settings]

    whole = minimise(CMA([0.1] * 3, decode, seed=0), price, evaluations=100)
    for limit in (0, 5, 23):
        with pytest.raises(KeyboardInterrupt):
            minimise(CMA([0.1] * 3, decode, seed=0), lambda new, limit=limit: remembered(new, limit), evaluations=100)
    assert minimise(CMA([0.1] * 3, decode, seed=0), lambda new: remembered(new, 1000), evaluations=100) == whole
    assert len(known) == whole.evaluated


def test_one_generation_is_run_in_any_case_and_no_part_of_one():
    found = minimise(CMA([0.5] * 3, decode, seed=0, population=6), price, evaluations=17)
    assert (found.evaluated, len(found.generations)) == (12, 2)
    assert len(minimise(CMA([0.5] * 3, decode, seed=0, population=6), price, evaluations=1).generations) == 1


def test_budget_is_divided_between_search_and_comparison():
    # A quarter of 400 readings is 100: 25 documents for each of four.
    assert divide(400, candidates=10, documents=2, contenders=4, confirm=3) == (150, 25)
    assert divide(32, candidates=10, documents=2, contenders=4, confirm=3) == (10, 3)
    with pytest.raises(EvaluationError, match="holds 31 readings; 10 candidates on 2 documents and their comparison t"):
        divide(31, candidates=10, documents=2, contenders=4, confirm=3)
