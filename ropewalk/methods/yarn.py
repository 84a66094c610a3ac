"""YaRN in its three forms, up to 4.5 times apart: that of engines, that of the paper, blended wavelengths."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.base import METHODS, require
from ropewalk.methods.by_parts import NTKByParts
from ropewalk.methods.scaled import ScaledTable, blend, parts
from ropewalk.rotary import RotarySpec


@dataclass(frozen=True, kw_only=True)
class YarnBase(ScaledTable):
    """What the three forms share: the two ends of the ramp and the attention factor 0.1 ln s + 1."""

    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        require(self, "beta_slow", self.beta_slow > 0, "above 0 turns")
        require(self, "beta_fast", self.beta_fast > self.beta_slow, f"above beta_slow ({self.beta_slow:g} turns)")
        require(self, "attention_factor", self.attention_factor is None or self.attention_factor > 0, "above 0")

    def attention_scaling(self) -> float:
        assert self.factor is not None
        return 0.1 * math.log(self.factor) + 1 if self.attention_factor is None else self.attention_factor

    def index_ramp(self, spec: RotarySpec) -> np.ndarray:
        """The share of its own frequency that pair i keeps, linear in the index i between rounded ends."""

        def index(turns: float) -> float:
            ratio = spec.pretrained_length / (2 * math.pi * turns)
            return spec.rotary_dim * math.log(ratio) / (2 * math.log(spec.base))

        low = max(math.floor(index(self.beta_fast)), 0)
        high = min(math.ceil(index(self.beta_slow)), spec.rotary_dim - 1)
        width = high - low if high != low else 0.001
        return 1 - np.clip((np.arange(spec.pairs) - low) / width, 0, 1)


@METHODS.register("yarn")
@dataclass(frozen=True, kw_only=True)
class Yarn(YarnBase):
    """yarn: the YaRN that transformers, vLLM and llama.cpp mean.

    theta'_i = (1 - gamma_i) theta_i / s + gamma_i theta_i with gamma_i linear in the index i between
    floor(c(beta_fast)) and ceil(c(beta_slow)), c(x) = d ln(L / 2 pi x) / (2 ln b); attention factor 0.1 ln s + 1
    (arXiv 2309.00071; the authors' code, whose ramp is not that of the paper).

    Attributes:
        factor: s >= 1. Left out: target / trained.
        beta_fast: full turns in the trained window from which a pair is kept.
        beta_slow: full turns up to which a pair is interpolated.
        attention_factor: multiplies cos and sin. Left out: 0.1 ln s + 1.
    """

    name: ClassVar[str] = "yarn"
    paper: ClassVar[str] = "arXiv 2309.00071"
    bibtex = NTKByParts.bibtex

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        return blend(self.factor, self.index_ramp(spec))


@METHODS.register("yarn-paper")
@dataclass(frozen=True, kw_only=True)
class YarnPaper(YarnBase):
    """yarn-paper: YaRN as its paper writes it, the ramp linear in full turns instead of in the index.

    gamma_i = clip((r_i - beta_slow) / (beta_fast - beta_slow), 0, 1) (arXiv 2309.00071, eq. 17-23).

    Attributes:
        factor: s >= 1. Left out: target / trained.
        beta_fast: full turns in the trained window from which a pair is kept.
        beta_slow: full turns up to which a pair is interpolated.
        attention_factor: multiplies cos and sin. Left out: 0.1 ln s + 1.
    """

    name: ClassVar[str] = "yarn-paper"
    paper: ClassVar[str] = "arXiv 2309.00071"
    bibtex = NTKByParts.bibtex

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        return blend(self.factor, parts(spec, self.beta_slow, self.beta_fast))


@METHODS.register("yarn-lambda")
@dataclass(frozen=True, kw_only=True)
class YarnLambda(YarnBase):
    """yarn-lambda: the "revised" YaRN of PoSE, which blends wavelengths instead of frequencies.

    lambda_i = (1 - gamma_i) s + gamma_i with the index ramp of `yarn` (arXiv 2309.10400's code; LongRoPE's start).

    Attributes:
        factor: s >= 1. Left out: target / trained.
        beta_fast: full turns in the trained window from which a pair is kept.
        beta_slow: full turns up to which a pair is interpolated.
        attention_factor: multiplies cos and sin. Left out: 0.1 ln s + 1.
    """

    name: ClassVar[str] = "yarn-lambda"
    paper: ClassVar[str] = "arXiv 2309.10400"
    bibtex = """@inproceedings{zhu2024pose,
  title={{PoSE}: Efficient Context Window Extension of {LLMs} via Positional Skip-wise Training},
  author={Zhu, Dawei and Yang, Nan and Wang, Liang and others}, booktitle={ICLR}, year={2024}}"""

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        kept = self.index_ramp(spec)
        return (1 - kept) * self.factor + kept
