"""The loop of a search by generations: candidates are asked for, measured and told, until the budget is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ropewalk.calibrate.axis import Setting


class Strategy(Protocol):
    """Proposes candidates. The same start, seed and costs must lead to the same candidates: that is how a killed
    search goes on, by being run again on stored measurements."""

    def ask(self) -> list[Setting]:
        """The next generation; empty where the search is over."""

    def tell(self, costs: dict[Setting, float]) -> None:
        """What every candidate of that generation costs."""


@dataclass(frozen=True)
class Minimum:
    """What a search found.

    Attributes:
        setting, cost: of the cheapest candidate; the first of equals.
        generations: the lowest cost after each.
        evaluated: different candidates.
    """

    setting: Setting
    cost: float
    generations: tuple[float, ...]
    evaluated: int


def minimise(
    strategy: Strategy,
    price: Callable[[Sequence[Setting]], list[float]],
    *,
    evaluations: int,
    after: Callable[[int, float], None] = lambda generation, cost: None,
) -> Minimum:
    """Run whole generations until there are none left or the next one does not fit; one is run in any case.

    Args:
        price: costs of candidates that were not measured yet; each is asked for once.
        evaluations: candidates that may be measured.
        after: called with the number of generations so far and the lowest cost.
    """
    costs: dict[Setting, float] = {}
    history: list[float] = []
    while asked := strategy.ask():
        new = [each for each in dict.fromkeys(asked) if each not in costs]
        if history and len(costs) + len(new) > evaluations:
            break
        costs |= zip(new, price(new), strict=True)
        strategy.tell({each: costs[each] for each in asked})
        history.append(min(costs.values()))
        after(len(history), history[-1])
    best = min(costs, key=lambda each: costs[each])
    return Minimum(best, costs[best], tuple(history), len(costs))
