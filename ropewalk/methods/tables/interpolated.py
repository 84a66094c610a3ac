"""Interpolated positions: new rows between those of the table."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.tables.base import TABLE_METHODS, Choice, TableMethod, require_reach, spread


@TABLE_METHODS.register("interpolated-positions")
@dataclass(frozen=True, kw_only=True)
class InterpolatedPositions(TableMethod):
    """Interpolated positions: new rows on straight lines between those of the table.

    E_t[i s] = E[i], linear between (arXiv 2404.12096). The s - 1 rows behind the last original one, which
    have no neighbour on the right, repeat it. Texts within the trained length take every s-th row, the original ones.

    Attributes:
        factor: s, rows of the new table for each original one. Left out: ceil(target / trained).
    """

    name: ClassVar[str] = "interpolated-positions"

    factor: int | None = None

    @property
    def stride(self) -> int:
        assert self.factor is not None
        return self.factor

    def choose(self, length: int, target_length: int) -> dict[str, Choice]:
        return {"factor": (spread(length, target_length), "target / trained, rounded up")}

    def check(self, length: int, target_length: int) -> None:
        super().check(length, target_length)
        require_reach(self, "factor", length, target_length)

    def natural_length(self, length: int) -> int:
        return length * (self.factor or 1)

    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        left, rest = np.divmod(np.arange(count), self.stride)
        right = np.minimum(left + 1, len(table) - 1)
        share = (rest / self.stride)[:, None]
        return (1 - share) * table[left] + share * table[right]
