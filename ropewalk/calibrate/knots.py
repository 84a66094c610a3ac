"""Few knots for many values: what CMA-ES searches instead of one number per rotary pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.calibrate.axis import Setting


@dataclass(frozen=True)
class Curve:
    """Values of 1 to `top` at places 0..count - 1, their logarithm linear between knots at even distances.

    Attributes:
        count: places: rotary pairs, or groups of them.
        knots: two or more, at most as many as places.
        top: largest value, above 1.
        monotone: values never fall from place to place. A knot is then the share of what is left up to `top` (in
            logarithms) by which it lies above the one before: every point of the unit cube is such a curve.
    """

    count: int
    knots: int
    top: float
    monotone: bool

    @property
    def places(self) -> np.ndarray:
        """Of the knots, float64 [knots]."""
        return np.linspace(0, self.count - 1, self.knots)

    def decode(self, point: np.ndarray) -> np.ndarray:
        """Values [count] of a point [knots] of the unit cube."""
        heights = point * math.log(self.top)
        if self.monotone:
            heights = math.log(self.top) * (1 - np.cumprod(1 - point))
        return np.exp(np.interp(np.arange(self.count), self.places, heights))

    def encode(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The point whose curve goes through the values at the knots; values that it cannot have are moved to it."""
        heights = np.interp(self.places, np.arange(self.count), np.log(values)) / math.log(self.top)
        heights = np.clip(heights, 0.0, 1.0)
        if not self.monotone:
            return heights
        left = 1 - np.maximum.accumulate(heights)
        before = np.concatenate([[1.0], left[:-1]])
        return 1 - np.divide(left, before, out=np.ones_like(left), where=before > 0)


@dataclass(frozen=True)
class Interval:
    """One more number beside a curve, linear between its ends."""

    low: float
    high: float

    def decode(self, share: float) -> float:
        return self.low + share * (self.high - self.low)

    def encode(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def two_places(values: Sequence[float] | np.ndarray) -> Setting:
    """Values as candidates have them: in hundredths, so that a stored one is found again by its text."""
    return tuple(round(float(value), 2) for value in values)
