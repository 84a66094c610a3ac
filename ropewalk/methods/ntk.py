"""NTK-aware scaling: another base, so that fast pairs hardly change and slow ones are interpolated."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, FrequencyMethod, extension_factor, require
from ropewalk.methods.scaled import ScaledTable
from ropewalk.rotary import FrequencyTable, RotarySpec

BLOC97 = """@misc{bloc97ntk,
  title={{NTK}-Aware Scaled {RoPE} allows {LLaMA} models to have extended context size}, author={bloc97}, year={2023},
  howpublished={reddit.com/r/LocalLLaMA/comments/14lz7j5}}"""


def ntk_slowdown(spec: RotarySpec, alpha: float) -> np.ndarray:
    """lambda_i = alpha^(2i / (d - 2)), base b alpha^(d / (d - 2)): 1 for the fastest pair, alpha for the slowest."""
    index = np.arange(spec.pairs)
    return alpha ** (index / max(1, spec.pairs - 1))


@METHODS.register("ntk")
@dataclass(frozen=True, kw_only=True)
class NTK(ScaledTable):
    """ntk: NTK-aware scaling, the form of bloc97.

    b' = b s^(d / (d - 2)), so lambda_i = s^(2i / (d - 2)) (u/bloc97, 2023; also arXiv 2309.00071, section 3.1).
    It falls short of the target that its factor names.

    Attributes:
        factor: s >= 1. Left out: 2 x target / trained. On SmolLM2 at twice its window (one document, ten facts) factor
            4 gave a mean answer log-probability of -1.96, factor 2 one of -3.30.
    """

    name: ClassVar[str] = "ntk"
    paper: ClassVar[str] = "bloc97 2023; arXiv 2309.00071"
    bibtex = BLOC97

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        factor = extension_factor(spec, target_length)
        chosen = (2 * factor if factor > 1 else 1.0, "2 x target / trained: the form falls short of its factor")
        return super().choose(spec, target_length) | {"factor": chosen}

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        return ntk_slowdown(spec, self.factor)


@METHODS.register("ntk-liu")
@dataclass(frozen=True, kw_only=True)
class NTKLiu(ScaledTable):
    """ntk-liu: NTK scaling with the base from the scaling laws of RoPE extrapolation, the "NTK" of LongRoPE2.

    b' = b^(ln(s L / 2 pi) / ln(L / 2 pi)), lambda_i = (b' / b)^(2i / d) (arXiv 2310.05209, theorem 1).

    Attributes:
        factor: s >= 1. Left out: target / trained.
    """

    name: ClassVar[str] = "ntk-liu"
    paper: ClassVar[str] = "arXiv 2310.05209"
    bibtex = """@inproceedings{liu2024scaling, title={Scaling Laws of {RoPE}-based Extrapolation},
  author={Liu, Xiaoran and Yan, Hang and Zhang, Shuo and others}, booktitle={ICLR}, year={2024}}"""

    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        assert self.factor is not None
        trained = spec.pretrained_length
        exponent = math.log(trained * self.factor / (2 * math.pi)) / math.log(trained / (2 * math.pi))
        return spec.base ** ((exponent - 1) * np.arange(spec.pairs) / spec.pairs)


@METHODS.register("dynamic-ntk")
@dataclass(frozen=True, kw_only=True)
class DynamicNTK(FrequencyMethod):
    """dynamic-ntk: NTK-aware scaling whose base follows the length of each text.

    b' = b (f n / L - (f - 1))^(d / (d - 2)) for a text of n > L tokens, b up to L (u/emozilla, 2023; `dynamic` in
    transformers). Here n is fixed per text when it is admitted (prompt + new tokens), so that cached keys stay valid;
    transformers lets n grow and keeps keys that were rotated with older bases.

    Attributes:
        factor: f >= 1; with f = 1 the base grows as the text does.
    """

    name: ClassVar[str] = "dynamic-ntk"
    paper: ClassVar[str] = "emozilla 2023; arXiv 2309.00071"
    bibtex = """@misc{emozilla2023dynamic,
  title={Dynamically Scaled {RoPE} further increases performance of long context {LLaMA}},
  author={emozilla}, year={2023}, howpublished={reddit.com/r/LocalLLaMA/comments/14mrgpr}}"""
    length_dependent: ClassVar[bool] = True

    factor: float | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        return super().choose(spec, target_length) | {"factor": (2.0, "the value that CLEX starts from")}

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.factor is not None
        require(self, "factor", 1 <= self.factor < float("inf"), "a number >= 1")

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        assert self.factor is not None
        alpha = self.factor * extension_factor(spec, length) - (self.factor - 1)
        return FrequencyTable(Grid(np.array(spec.inv_freq) / ntk_slowdown(spec, alpha)), spec.attention_scaling)
