"""The published evolution: its constraints, its counts, and that it finds what a simulated model wants."""

import itertools
import random

import numpy as np
import pytest

from ropewalk.calibrate.genome import LARGEST, RETAINED, Critical, Monotone
from ropewalk.calibrate.minimise import minimise
from ropewalk.calibrate.population import Evolution, Sizes
from ropewalk.errors import EvaluationError
from ropewalk.rotary import RotarySpec, default_inv_freq

SPEC = RotarySpec(32, 32, 1e4, 128, 2, 2, 2, tuple(default_inv_freq(1e4, 32).tolist()))
FACTOR = 4.0
SEEDS = [[FACTOR] * 16, (FACTOR ** (np.arange(16) / 15)).tolist(), [1.0] * 5 + [2.0] + [FACTOR] * 10]
SMALL = Sizes(16, 8, 4, 4, iterations=6)


def distance(settings):
    """The truth: 1 on the first six pairs, 4.4 on the others."""
    return [sum(abs(value - (1.0 if i < 6 else 4.4)) for i, value in enumerate(one[:16])) for one in settings]


def everything(genome, sizes=SMALL, seed=0):
    """All that an evolution asks for."""
    asked = []

    def price(settings):
        asked.extend(settings)
        return distance(settings)

    found = minimise(Evolution(genome, SEEDS, sizes=sizes, seed=seed), price, evaluations=10_000)
    return asked, found


def test_longropes_individuals_keep_its_constraints():
    asked, found = everything(Monotone(FACTOR))
    for one in asked:
        factors = one[:-1]
        assert len(factors) == 16 and one[-1] == 0 and all(a <= b for a, b in itertools.pairwise(factors))
        assert factors[0] >= 1 and factors[-1] <= LARGEST * FACTOR
        assert all(abs(100 * value - round(100 * value)) < 1e-9 for value in factors)
    assert found.setting in asked


def test_longrope2s_individuals_keep_its_constraints():
    asked, _ = everything(Critical(SPEC, FACTOR))
    # ten turns: 2 pi b^(i / 16) * 10 >= 128 from i = 2 on; one turn from i = 6 on
    assert {int(one[-1]) for one in asked} == {2, 3, 4, 5, 6}
    for one in asked:
        critical, factors = int(one[-1]), one[:-1]
        assert all(FACTOR <= value <= 2 * FACTOR for value in factors[critical:])
        assert all(a <= b for a, b in itertools.pairwise(factors))
        ntk = [factors[critical] ** (i / critical) for i in range(critical)]
        assert factors[:critical] == pytest.approx(ntk, abs=0.0051)


def test_published_sizes_ask_for_as_many_candidates_as_published():
    assert Sizes().evaluations() == 1344
    asked, found = everything(Monotone(FACTOR), sizes=Sizes(64, 32, 16, 16, iterations=3))
    assert len(asked) == found.evaluated <= 64 + 3 * 32
    assert len(asked) > 64 + 2 * 32 and len(found.generations) == 4


def test_first_population_holds_the_seeds_and_evolution_improves_on_them():
    asked, found = everything(Monotone(FACTOR), sizes=Sizes(32, 16, 8, 8, iterations=30))
    first = [(*(round(value, 2) for value in seed), 0.0) for seed in SEEDS]
    assert asked[:3] == first
    assert found.cost < min(distance(first)) / 2
    assert list(found.generations) == sorted(found.generations, reverse=True)


def test_start_tokens_are_searched_when_asked_for():
    """A truth that wants 12 of them beside its factors."""
    asked = []

    def price(settings):
        asked.extend(settings)
        return [cost + abs(one[-1] - 12) for cost, one in zip(distance(settings), settings, strict=True)]

    genome = Monotone(FACTOR, RETAINED)
    found = minimise(
        Evolution(genome, SEEDS, sizes=Sizes(32, 16, 8, 8, iterations=10), seed=0), price, evaluations=10_000
    )
    assert {one[-1] for one in asked} <= set(RETAINED) and len({one[-1] for one in asked}) > 5
    assert found.setting[-1] == 12


@pytest.mark.parametrize("genome", [Monotone(FACTOR), Critical(SPEC, FACTOR)], ids=["longrope", "longrope2"])
def test_same_seed_asks_for_the_same_whatever_else_draws(genome):
    first, _ = everything(genome)
    random.seed(5)
    np.random.rand(3)
    assert everything(genome)[0] == first
    assert everything(genome, seed=1)[0] != first


def test_child_takes_genes_of_both_parents():
    genome, rng = Monotone(FACTOR), random.Random(0)
    one, other = (*[1.0] * 8, *[4.0] * 8, 0.0), (*[1.0] * 6, *[2.0] * 4, *[4.0] * 6, 0.0)
    child = genome.child(one, other, rng, 1.0)
    assert child != one and set(child[:-1]) <= {1.0, 2.0, 4.0}
    assert genome.child(one, one, rng, 1.0) == one


@pytest.mark.parametrize("wrong", [{"population": 0}, {"probability": 0.0}, {"parents": 60}, {"iterations": 0}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(EvaluationError, match="no population"):
        Sizes(**wrong)
