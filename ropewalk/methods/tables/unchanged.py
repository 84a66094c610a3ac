"""The original table: the baseline."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.errors import MethodError
from ropewalk.methods.tables.base import TABLE_METHODS, TableMethod


@TABLE_METHODS.register("none")
@dataclass(frozen=True, kw_only=True)
class UnchangedPositions(TableMethod):
    """The original table: texts are cut at the target, which may be anything up to the trained length."""

    name: ClassVar[str] = "none"
    paper: ClassVar[str] = "-"
    bibtex: ClassVar[str] = ""

    def check(self, length: int, target_length: int) -> None:
        if target_length > length:
            raise MethodError(
                f"none keeps the table of {length} positions, wanted {target_length} tokens; take another method, "
                "such as interpolated-positions"
            )

    def natural_length(self, length: int) -> int:
        return length

    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        return table[:count]
