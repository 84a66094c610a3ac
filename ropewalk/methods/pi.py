"""Position interpolation."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.base import METHODS
from ropewalk.methods.scaled import ScaledTable
from ropewalk.rotary import RotarySpec


@METHODS.register("pi")
@dataclass(frozen=True, kw_only=True)
class PositionInterpolation(ScaledTable):
    """pi: position interpolation, every frequency divided by the factor.

    theta'_i = theta_i / s (arXiv 2306.15595, eq. 3). Meant for fine-tuning: without it short distances blur.

    Attributes:
        factor: s >= 1. Left out: target / trained.
    """

    name: ClassVar[str] = "pi"
    paper: ClassVar[str] = "arXiv 2306.15595"
    bibtex = """@article{chen2023pi,
  title={Extending Context Window of Large Language Models via Positional Interpolation},
  author={Chen, Shouyuan and Wong, Sherman and Chen, Liangjian and Tian, Yuandong},
  journal={arXiv:2306.15595}, year={2023}}"""

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        return np.full(spec.pairs, self.factor)
