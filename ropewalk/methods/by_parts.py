"""NTK-by-parts and Llama-3 scaling: fast pairs are kept, slow ones interpolated, by turns in the trained window."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.base import METHODS, require
from ropewalk.methods.scaled import ScaledTable, blend, parts
from ropewalk.rotary import RotarySpec


@dataclass(frozen=True, kw_only=True)
class ByParts(ScaledTable):
    """theta'_i = (1 - gamma_i) theta_i / s + gamma_i theta_i, gamma_i = clip((r_i - low) / (high - low), 0, 1)."""

    low: float = 1.0
    high: float = 32.0

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        require(self, "low", self.low > 0, "above 0 turns")
        require(self, "high", self.high > self.low, f"above low ({self.low:g} turns)")

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        return blend(self.factor, parts(spec, self.low, self.high))


@METHODS.register("ntk-by-parts")
@dataclass(frozen=True, kw_only=True)
class NTKByParts(ByParts):
    """ntk-by-parts: YaRN's table without its attention factor.

    gamma_i is linear in the turns r_i between low and high (arXiv 2309.00071, eq. 17-19).

    Attributes:
        factor: s >= 1. Left out: target / trained.
        low: pairs with fewer full turns in the trained window are interpolated (the paper's alpha, 1).
        high: pairs with more are kept (the paper's beta, 32 for the Llama family).
    """

    name: ClassVar[str] = "ntk-by-parts"
    paper: ClassVar[str] = "arXiv 2309.00071"
    bibtex = """@inproceedings{peng2024yarn,
  title={{YaRN}: Efficient Context Window Extension of Large Language Models},
  author={Peng, Bowen and Quesnelle, Jeffrey and Fan, Honglu and Shippole, Enrico}, booktitle={ICLR}, year={2024}}"""


@METHODS.register("llama3")
@dataclass(frozen=True, kw_only=True)
class Llama3(ByParts):
    """llama3: the scaling of Llama 3.1, NTK-by-parts with low 1, high 4 and no attention factor.

    Equal to `llama3` of transformers (arXiv 2407.21783; the ramp is in Meta's released code).

    Attributes:
        factor: s >= 1 (Llama 3.1: 8). Left out: target / trained.
        low: low_freq_factor, full turns in the trained window.
        high: high_freq_factor, full turns.
    """

    name: ClassVar[str] = "llama3"
    paper: ClassVar[str] = "arXiv 2407.21783"
    bibtex = """@article{grattafiori2024llama3,
  title={The {Llama} 3 Herd of Models}, author={Grattafiori, Aaron and others},
  journal={arXiv:2407.21783}, year={2024}}"""

    high: float = 4.0
