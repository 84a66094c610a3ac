"""ReRoPE: exact distances in a window, one constant distance beyond it."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, require
from ropewalk.methods.two_bands import two_bands
from ropewalk.plan import Band, PositionMap
from ropewalk.rotary import RotarySpec


@METHODS.register("rerope")
@dataclass(frozen=True, kw_only=True)
class ReRoPE(PositionMethod):
    """ReRoPE: no distance is larger than the window.

    p = min(m - n, w), with the log-n query scale that its author always applies (J. Su, github.com/bojone/rerope).

    Attributes:
        window: w, tokens. Left out: half of the trained window. On SmolLM2 at twice its window
            (one document, ten facts) 4,096 gave a mean answer log-probability of -0.35, 1,024 one of -0.74; on our
            small trained model windows of a half to three quarters did best.
    """

    name: ClassVar[str] = "rerope"
    paper: ClassVar[str] = "github.com/bojone/rerope"
    bibtex = """@misc{rerope2023,
  title={Rectified Rotary Position Embeddings}, author={Jianlin Su}, year={2023},
  howpublished={\\url{https://github.com/bojone/rerope}}}"""

    window: int | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        window = max(1, min(spec.pretrained_length // 2, target_length))
        own: dict[str, Choice] = {
            "window": (window, "half of the trained window"),
            "log_n": (True, "its author always applies it"),
        }
        return super().choose(spec, target_length) | own

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.window is not None
        require(self, "window", 1 <= self.window <= spec.pretrained_length, f"between 1 and {spec.pretrained_length}")

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.window is not None
        constant = Grid(math.inf)
        return two_bands(self.window, PositionMap(constant, Grid(self.window)), PositionMap(constant))
