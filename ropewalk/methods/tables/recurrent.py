"""Recurrent positions: the table starts again at its end."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.methods.tables.base import TABLE_METHODS, TableMethod


@TABLE_METHODS.register("recurrent-positions")
@dataclass(frozen=True, kw_only=True)
class RecurrentPositions(TableMethod):
    """Recurrent positions: the table starts again at its end.

    E_t[p] = E[p mod L] (arXiv 2404.12096).
    """

    name: ClassVar[str] = "recurrent-positions"

    def natural_length(self, length: int) -> None:
        return None

    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        return table[np.arange(count) % len(table)]
