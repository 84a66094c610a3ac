"""Tuned positions: a longer table whose new rows were trained."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from ropewalk.errors import MethodError, ProfileError
from ropewalk.methods.tables.base import TABLE_METHODS, TableMethod
from ropewalk.methods.tables.weights import Weights


@TABLE_METHODS.register("tuned-positions")
@dataclass(frozen=True, kw_only=True)
class TunedPositions(TableMethod):
    """Tuned positions: a longer table whose new rows were trained.

    It began as the recurrent, the interpolated or the grouped one (arXiv 2404.12096, where the interpolated one came
    out best). Original rows are as they were, so texts within the trained length are too. `ropewalk tune-positions`
    makes the folder.

    Attributes:
        weights: the folder.
    """

    name: ClassVar[str] = "tuned-positions"
    needs = "training"

    weights: Path | None = None

    @cached_property
    def _read(self) -> Weights:
        if self.weights is None:
            raise MethodError(
                "tuned-positions wants weights=FOLDER, the result of a training run; make one with "
                "`ropewalk tune-positions`"
            )
        return Weights.load(self.weights)

    @property
    def corpora(self) -> tuple[str, ...]:
        """SHA-256 of the texts that the rows were trained on: what they are tested on is another one."""
        return tuple(self._read.provenance.get("corpora", ()))

    @property
    def stride(self) -> int:
        return self._read.stride

    def check(self, length: int, target_length: int) -> None:
        super().check(length, target_length)
        if length != self._read.pretrained_length:
            raise ProfileError(
                f"{str(self.weights)!r} was trained for a table of {self._read.pretrained_length} positions, this "
                f"model has {length}; train again on this model"
            )
        if target_length > self._read.target_length:
            raise MethodError(
                f"{str(self.weights)!r} was trained up to {self._read.target_length} tokens, wanted {target_length}; "
                "take that target, or train for the longer one"
            )

    def natural_length(self, length: int) -> int:
        return self._read.target_length

    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        self._read.require(table)
        return self._read.table[:count].astype(np.float64)
