"""What evolves in the searches of LongRoPE and LongRoPE2.

An individual is a tuple: a factor lambda_i for every pair and one number after them, of LongRoPE the start tokens that
are retained, of LongRoPE2 its critical dimension.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.calibrate.axis import Setting
from ropewalk.calibrate.critical import critical_range
from ropewalk.rotary import RotarySpec

# LongRoPE's table 4: the step of a factor, and the largest one over s.
PRECISION = 100  # steps in a factor of 1
LARGEST = 1.25
RETAINED = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)  # start tokens, the same table
# LongRoPE2's factors beyond the critical dimension: s to twice s.
TWICE = 2.0


def rounded(factors: Sequence[float] | np.ndarray) -> Setting:
    """Factors in steps of a hundredth, as both papers search them."""
    return tuple(round(float(factor) * PRECISION) / PRECISION for factor in factors)


def drawn(rng: random.Random, low: float, high: float) -> float:
    """A factor between two others, both included."""
    return rng.randint(round(low * PRECISION), round(high * PRECISION)) / PRECISION


def redrawn(factors: list[float], rng: random.Random, probability: float, *, low: float, high: float) -> None:
    """Draw every factor anew with a probability, between its neighbours, so that they never fall."""
    for index in range(len(factors)):
        if rng.random() < probability:
            below = factors[index - 1] if index else low
            factors[index] = drawn(rng, below, factors[index + 1] if index + 1 < len(factors) else high)


def exchanged(factors: list[float], other: Sequence[float], rng: random.Random, probability: float, first: int) -> None:
    """Take every factor from `first` on from another individual with a probability, where that keeps the order."""
    for index in range(first, len(factors)):
        if rng.random() < probability:
            below = factors[index - 1] if index else -np.inf
            above = factors[index + 1] if index + 1 < len(factors) else np.inf
            if below <= other[index] <= above:
                factors[index] = other[index]


@dataclass(frozen=True)
class Monotone:
    """LongRoPE's: 1 <= lambda_i <= lambda_{i + 1} <= 1.25 s in steps of 0.01 (arXiv 2402.13753, table 4, algorithm 1).

    Departures from the authors' code, which departs from the paper: mutants reach up to 1.25 s (the code: 1 + s), and a
    crossover takes as many factors as it draws (the code: the first that it may). Start tokens are retained only when
    asked for: no engine's configuration holds them, and the paper gained little by them (table 11).

    Attributes:
        factor: s = target / trained.
        retain: numbers of start tokens to choose from, 0 first.
    """

    factor: float
    retain: tuple[int, ...] = (0,)

    def first(self, seeds: Sequence[Sequence[float]], rng: random.Random) -> list[Setting]:
        """The seeds themselves, with no start token retained."""
        return [(*rounded(np.clip(seed, 1.0, LARGEST * self.factor)), 0.0) for seed in seeds]

    def mutant(self, one: Setting, rng: random.Random, probability: float) -> Setting:
        """Each factor redrawn with a probability between its neighbours, and so the start tokens."""
        factors, retained = list(one[:-1]), one[-1]
        redrawn(factors, rng, probability, low=1.0, high=LARGEST * self.factor)
        if len(self.retain) > 1 and rng.random() < probability:
            retained = float(rng.choice(self.retain))
        return (*factors, retained)

    def child(self, one: Setting, other: Setting, rng: random.Random, probability: float) -> Setting:
        """Each factor of the other parent with a probability, where they stay in order, and so its start tokens."""
        factors, retained = list(one[:-1]), one[-1]
        exchanged(factors, other[:-1], rng, probability, 0)
        if len(self.retain) > 1 and rng.random() < probability:
            retained = other[-1]
        return (*factors, retained)


@dataclass(frozen=True)
class Critical:
    """LongRoPE2's: from the critical dimension d on factors between s and 2 s that never fall, NTK before it.

    lambda_i = lambda_d^(i / d) for i < d (arXiv 2502.20082, algorithms 1 and 2). Algorithm 1 as printed takes the base
    of the NTK part from d_10; we take it from d, as algorithm 2 and the authors' code do: the other would overshoot
    lambda_d.
    The paper's crossover is not printed; here a child keeps the critical dimension of its first parent, and takes
    factors of the other from the later of both on.

    Attributes:
        factor: s = target / trained.
    """

    spec: RotarySpec
    factor: float

    def first(self, seeds: Sequence[Sequence[float]], rng: random.Random) -> list[Setting]:
        """One individual for every critical dimension from d_10 to the theoretical one, its factor drawn in [s, 2 s].

        Other seeds have no critical dimension and are left out, as published.
        """
        found = []
        for critical in critical_range(self.spec):
            start = drawn(rng, self.factor, TWICE * self.factor)
            found.append(self.whole([start] * (self.spec.pairs - critical), critical))
        return found

    def mutant(self, one: Setting, rng: random.Random, probability: float) -> Setting:
        """Factors from the critical dimension on redrawn with a probability; the NTK part follows."""
        critical = int(one[-1])
        tail = list(one[critical:-1])
        redrawn(tail, rng, probability, low=self.factor, high=TWICE * self.factor)
        return self.whole(tail, critical)

    def child(self, one: Setting, other: Setting, rng: random.Random, probability: float) -> Setting:
        """See the class."""
        critical = int(one[-1])
        tail = list(one[critical:-1])
        exchanged(tail, other[critical:-1], rng, probability, max(0, int(other[-1]) - critical))
        return self.whole(tail, critical)

    def whole(self, tail: Sequence[float], critical: int) -> Setting:
        """An individual from its factors beyond the critical dimension."""
        return (*rounded(tail[0] ** (np.arange(critical) / critical)), *tail, float(critical))
