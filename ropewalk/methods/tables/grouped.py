"""Grouped positions: neighbouring tokens share a row of the table."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.tables.base import TABLE_METHODS, Choice, TableMethod, require_reach, spread


@TABLE_METHODS.register("grouped-positions")
@dataclass(frozen=True, kw_only=True)
class GroupedPositions(TableMethod):
    """Grouped positions: neighbouring tokens share a row of the table.

    E_t[p] = E[floor(p / s)] (arXiv 2404.12096). The authors' code takes s from the longest text of the batch; here it
    follows from the target alone, and texts within the trained length are not grouped.

    Attributes:
        group: s, tokens that share one row. Left out: ceil(target / trained).
    """

    name: ClassVar[str] = "grouped-positions"

    group: int | None = None

    @property
    def stride(self) -> int:
        assert self.group is not None
        return self.group

    def choose(self, length: int, target_length: int) -> dict[str, Choice]:
        return {"group": (spread(length, target_length), "target / trained, rounded up")}

    def check(self, length: int, target_length: int) -> None:
        super().check(length, target_length)
        require_reach(self, "group", length, target_length)

    def natural_length(self, length: int) -> int:
        return length * (self.group or 1)

    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        return table[np.arange(count) // self.stride]
