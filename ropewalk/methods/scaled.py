"""What the methods with one factor share: theta_i / lambda_i, lambda_i made from one factor s = target / trained."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ropewalk.grid import Grid
from ropewalk.methods.base import Choice, FrequencyMethod, extension_factor, require
from ropewalk.rotary import FrequencyTable, RotarySpec


@dataclass(frozen=True, kw_only=True)
class ScaledTable(FrequencyMethod):
    """A table that follows from one factor.

    Attributes:
        factor: s >= 1. Left out: target / trained.
    """

    factor: float | None = None

    @abstractmethod
    def slowdown(self, spec: RotarySpec) -> np.ndarray:
        """lambda_i = theta_i / theta'_i of the filled method, float64 [pairs]."""

    def attention_scaling(self) -> float:
        """The factor on cos and sin; 1 unless the method says otherwise."""
        return 1.0

    def stretch(self, spec: RotarySpec, target_length: int) -> float:
        assert self.factor is not None
        return self.factor

    @property
    def takes_factor(self) -> bool:
        return self.factor is None

    def with_factor(self, factor: float) -> Self:
        return replace(self, factor=factor)

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        factor = extension_factor(spec, target_length)
        return super().choose(spec, target_length) | {"factor": (factor, "target / trained")}

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.factor is not None
        require(self, "factor", 1 <= self.factor < float("inf"), "a number >= 1")

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        theta = np.array(spec.inv_freq) / self.slowdown(spec)
        return FrequencyTable(Grid(theta), spec.attention_scaling * self.attention_scaling())


def rotations(spec: RotarySpec) -> np.ndarray:
    """r_i = L theta_i / (2 pi), full turns of each pair in the trained window, float64 [pairs]."""
    return spec.pretrained_length / spec.wavelengths


def blend(factor: float, kept: np.ndarray) -> np.ndarray:
    """lambda_i of theta' = (1 - kept) theta / s + kept theta; kept in [0, 1] per pair."""
    return 1 / ((1 - kept) / factor + kept)


def parts(spec: RotarySpec, low: float, high: float) -> np.ndarray:
    """gamma_i = clip((r_i - low) / (high - low), 0, 1): the share of its own frequency that pair i keeps."""
    return np.clip((rotations(spec) - low) / (high - low), 0, 1)
