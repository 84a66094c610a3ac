"""Leaky ReRoPE: exact distances in a window, slowly growing ones beyond it."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, require
from ropewalk.methods.rerope import ReRoPE
from ropewalk.methods.two_bands import compression, local_window, two_bands
from ropewalk.plan import Band, PositionMap
from ropewalk.rotary import RotarySpec


@METHODS.register("leaky-rerope")
@dataclass(frozen=True, kw_only=True)
class LeakyReRoPE(PositionMethod):
    """Leaky ReRoPE: beyond the window distances grow slowly, without rounding.

    p = m - n for m - n < w, else w + (m - n - w) / k, with the log-n query scale (github.com/bojone/rerope).

    Attributes:
        window: w, tokens. Left out: an eighth of the trained window, at most 1,024.
        slope: the divisor k >= 1. Left out: what brings the farthest distance to two thirds of the trained window.
    """

    name: ClassVar[str] = "leaky-rerope"
    paper: ClassVar[str] = "github.com/bojone/rerope"
    bibtex = ReRoPE.bibtex
    beyond: ClassVar[str] = "raise the slope or leave it out"

    window: int | None = None
    slope: float | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        window = local_window(spec, target_length)
        slope = compression(spec, target_length, self.window or window[0])
        own: dict[str, Choice] = {
            "window": window,
            "slope": (slope, "keeps distances within two thirds of the trained window"),
            "log_n": (True, "its author always applies it"),
        }
        return super().choose(spec, target_length) | own

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.window is not None and self.slope is not None
        require(self, "window", 1 <= self.window <= spec.pretrained_length, f"between 1 and {spec.pretrained_length}")
        require(self, "slope", self.slope >= 1, "at least 1")

    def reach(self, spec: RotarySpec) -> int | None:
        """w + (L - w) k, the length at which the farthest distance leaves the trained window."""
        assert self.window is not None and self.slope is not None
        if self.slope == 1 or math.isinf(self.slope):
            return None
        return int(self.window + (spec.pretrained_length - self.window) * self.slope)

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.window is not None and self.slope is not None
        slope = Grid(self.slope)
        shift = Grid(self.window - self.window / self.slope)
        return two_bands(self.window, PositionMap(slope, shift), PositionMap(slope))
