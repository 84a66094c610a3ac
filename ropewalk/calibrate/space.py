"""The settings of a joint search: a scale for every group of rotary pairs, the window, the gain."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.calibrate.axis import Setting
from ropewalk.calibrate.knots import Curve, Interval
from ropewalk.methods import DPE
from ropewalk.rotary import RotarySpec

# Ranges: of a scale up to so many times the baseline, of the window as multiples of its default, of the gain.
WIDEST_SCALE = 4.0
WINDOWS = (0.25, 2.0)
GAINS = Interval(0.9, 1.5)
WINDOW_STEP = 16  # tokens; the step of a scale is a hundredth, that of the gain a thousandth


@dataclass(frozen=True)
class Space:
    """Settings of a joint search: a scale for every group, the window, the gain.

    Attributes:
        groups: first and last + 1 of the rotary pairs of each.
        window: the default one, tokens.
        fixed: fields of `dpe` that are not searched: the profile with key dimensions.
    """

    spec: RotarySpec
    groups: tuple[tuple[int, int], ...]
    window: int
    top: float
    monotone: bool
    fixed: dict[str, Any]

    @property
    def scales(self) -> Curve:
        """A knot for every group."""
        return Curve(len(self.groups), len(self.groups), self.top, self.monotone)

    @property
    def windows(self) -> Interval:
        """The logarithm of the window over its default."""
        longest = min(WINDOWS[1], self.spec.pretrained_length / self.window)
        return Interval(math.log(WINDOWS[0]), math.log(longest))

    def encode(self, setting: Setting) -> list[float]:
        """The point of a setting."""
        *scales, window, gain = setting
        share = self.windows.encode(math.log(window / self.window))
        return [*self.scales.encode(scales).tolist(), share, GAINS.encode(gain)]

    def decode(self, point: np.ndarray) -> Setting:
        """The setting of a point, rounded."""
        scales = [round(float(value), 2) for value in self.scales.decode(point[:-2])]
        wanted = self.window * math.exp(self.windows.decode(float(point[-2])))
        step = min(WINDOW_STEP, max(1, self.window // WINDOW_STEP))
        return (*scales, float(max(1, step * round(wanted / step))), round(GAINS.decode(float(point[-1])), 3))

    def values(self, setting: Setting) -> dict[str, Any]:
        """Fields of `dpe`, scales one per pair."""
        *scales, window, gain = setting
        spread = [scale for scale, (first, last) in zip(scales, self.groups, strict=True) for _ in range(first, last)]
        return {"window": int(window), "scales": spread, "logit_scale": gain}

    def method(self, setting: Setting) -> str:
        """As text."""
        values = self.values(setting)
        return str(DPE(**self.fixed | values | {"scales": tuple(values["scales"])}))
