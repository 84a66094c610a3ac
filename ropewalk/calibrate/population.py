"""The evolutionary search that LongRoPE and LongRoPE2 share.

arXiv 2402.13753, algorithm 1; 2502.20082, algorithm 2.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from ropewalk.calibrate.axis import Setting
from ropewalk.errors import EvaluationError

# A child that is one of its own generation is drawn again, so often at most.
ATTEMPTS = 20


class Genome(Protocol):
    """Individuals, and what becomes of them."""

    def first(self, seeds: Sequence[Sequence[float]], rng: random.Random) -> list[Setting]:
        """What the first population is made of."""

    def mutant(self, one: Setting, rng: random.Random, probability: float) -> Setting:
        """A changed individual that keeps to the constraints."""

    def child(self, one: Setting, other: Setting, rng: random.Random, probability: float) -> Setting:
        """An individual of two parents that keeps to the constraints."""


@dataclass(frozen=True)
class Sizes:
    """Of a population; the defaults are published (LongRoPE, section 3.2 and appendix)."""

    population: int = 64
    parents: int = 32
    mutants: int = 16
    children: int = 16
    probability: float = 0.3
    iterations: int = 40

    def __post_init__(self) -> None:
        whole = min(self.population, self.parents, self.mutants, self.children, self.iterations) >= 1
        if not whole or not 0 < self.probability <= 1 or self.parents + self.mutants + self.children > self.population:
            raise EvaluationError(
                f"no population: {asdict(self)}; wanted numbers of 1 or more, a probability in (0, 1], and parents + "
                "mutants + children of the population at most"
            )

    def evaluations(self) -> int:
        """Candidates measured at most: the first population, then mutants and children of each iteration."""
        return self.population + self.iterations * (self.mutants + self.children)


class Evolution:
    """Iteration by iteration: the best are kept as parents, the worst give way to their mutants and children.

    The first population is the seeds and mutants of them. Everything is drawn from a generator of its own.

    Args:
        seeds: factors of methods known before: PI, NTK, YaRN.
    """

    def __init__(self, genome: Genome, seeds: Sequence[Sequence[float]], *, sizes: Sizes, seed: int) -> None:
        self._genome = genome
        self._sizes = sizes
        self._rng = random.Random(f"evolution {seed}")
        first = list(dict.fromkeys(genome.first(seeds, self._rng)))[: sizes.population]
        self._population = list(first)
        while len(self._population) < sizes.population:
            parent = first[len(self._population) % len(first)]
            self._add(lambda parent=parent: genome.mutant(parent, self._rng, sizes.probability))
        self._generation = 0

    def ask(self) -> list[Setting]:
        """The population; empty after the last iteration."""
        return [] if self._generation > self._sizes.iterations else list(self._population)

    def tell(self, costs: dict[Setting, float]) -> None:
        """Keep the cheapest as parents, and make the next population of them."""
        sizes, rng = self._sizes, self._rng
        parents = sorted(dict.fromkeys(self._population), key=lambda one: costs[one])[: sizes.parents]
        self._population = list(parents)
        for _ in range(sizes.mutants):
            self._add(lambda: self._genome.mutant(rng.choice(parents), rng, sizes.probability))
        for _ in range(sizes.children):
            self._add(lambda: self._genome.child(rng.choice(parents), rng.choice(parents), rng, sizes.probability))
        self._generation += 1

    def _add(self, make: "Make") -> None:
        for _ in range(ATTEMPTS):
            one = make()
            if one not in self._population:
                break
        self._population.append(one)


class Make(Protocol):
    """Makes an individual."""

    def __call__(self) -> Setting: ...
