"""CMA-ES over a few knots, by the library `cma`."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ropewalk.calibrate.axis import Setting
from ropewalk.errors import EvaluationError

# Of the range of a knot: the first generation stays near the start, which is good already.
STEP = 0.15
# Generations in which nothing changes, or the spread below which candidates round to the same, end a search.
SMALLEST = 1e-3


def usual_population(values: int) -> int:
    """Candidates of a generation, 4 + 3 ln(values) (Hansen 2016, arXiv 1604.00772, table 1)."""
    return 4 + int(3 * math.log(values))


class CMA:
    """Candidates are points of the unit cube, turned into settings by `decode`; the first one is the start itself.

    Deterministic: it draws from a generator of its own, and its state follows from the costs that it is told.

    Args:
        start: [knots], each in 0..1.
        decode: a setting for a point. Different points may give the same one: settings are rounded.
        population: candidates of a generation; None: `usual_population`.

    Raises:
        EvaluationError: `cma` is not installed.
    """

    def __init__(
        self,
        start: Sequence[float] | np.ndarray,
        decode: Callable[[np.ndarray], Setting],
        *,
        seed: int,
        population: int | None = None,
        step: float = STEP,
    ) -> None:
        try:
            import cma
        except ImportError as error:
            raise EvaluationError("cma is not installed; pip install 'ropewalk[calibrate]'") from error
        draw = np.random.default_rng(seed)
        options = {
            "bounds": [0.0, 1.0],
            # The library draws from numpy's global generator otherwise, which anything may advance.
            "randn": lambda rows, columns: draw.standard_normal((rows, columns)),
            "seed": np.nan,
            "tolx": SMALLEST,
            "verbose": -9,
            "popsize": population or usual_population(len(start)),
        }
        first = np.clip(np.asarray(start, dtype=float), 0.0, 1.0)
        self._decode = decode
        self._search = cma.CMAEvolutionStrategy(first.tolist(), step, options)
        self._search.inject([first], force=True)
        self._points: list[np.ndarray] = []
        self._settings: list[Setting] = []

    def ask(self) -> list[Setting]:
        """The next generation; empty where the distribution has shrunk to a point."""
        if self._search.stop():
            return []
        self._points = self._search.ask()
        self._settings = [self._decode(np.clip(point, 0.0, 1.0)) for point in self._points]
        return list(self._settings)

    def tell(self, costs: dict[Setting, float]) -> None:
        """What every candidate of the generation costs."""
        self._search.tell(self._points, [costs[setting] for setting in self._settings])
