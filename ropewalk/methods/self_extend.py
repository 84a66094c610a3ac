"""Self-Extend: exact distances in a window, distances between groups of tokens beyond it."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, require
from ropewalk.methods.two_bands import compression, local_window, two_bands
from ropewalk.plan import Band, PositionMap
from ropewalk.rotary import RotarySpec


@METHODS.register("self-extend")
@dataclass(frozen=True, kw_only=True)
class SelfExtend(PositionMethod):
    """Self-Extend: plain distances below the window, distances between groups of tokens beyond it.

    p = m - n for m - n < w, else floor(m / G) - floor(n / G) + w - floor(w / G) (arXiv 2401.01325, section 3; the
    authors' later fix with the floored offset, which makes prefill and decode agree for every w and G). p depends on
    m and n, not on m - n alone: equal distances differ by at most 1.

    Attributes:
        group: G, tokens that share one position beyond the window. Left out: the smallest group that brings the
            farthest distance to two thirds of the trained window.
        window: w, tokens. Left out: an eighth of the trained window, at most 1,024.
    """

    name: ClassVar[str] = "self-extend"
    paper: ClassVar[str] = "arXiv 2401.01325"
    bibtex = """@inproceedings{jin2024selfextend,
  title={{LLM} Maybe {LongLM}: Self-Extend {LLM} Context Window Without Tuning},
  author={Jin, Hongye and Han, Xiaotian and Yang, Jingfeng and others}, booktitle={ICML}, year={2024}}"""
    beyond: ClassVar[str] = "raise the group or leave it out"

    group: int | None = None
    window: int | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        window = local_window(spec, target_length)
        group = math.ceil(compression(spec, target_length, self.window or window[0]) - 1e-9)
        reason = "smallest group that keeps distances within two thirds of the trained window"
        return super().choose(spec, target_length) | {"window": window, "group": (group, reason)}

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.group is not None and self.window is not None
        require(self, "group", self.group >= 1, "a whole number of tokens, at least 1")
        require(self, "window", 1 <= self.window <= spec.pretrained_length, f"between 1 and {spec.pretrained_length}")

    def reach(self, spec: RotarySpec) -> int | None:
        """(L - w) G + w, the length at which the farthest distance leaves the trained window."""
        assert self.group is not None and self.window is not None
        return None if self.group == 1 else (spec.pretrained_length - self.window) * self.group + self.window

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.group is not None and self.window is not None
        group = Grid(self.group)
        query = PositionMap(group, Grid(self.window - self.window // self.group), floor=True)
        return two_bands(self.window, query, PositionMap(group, floor=True))
