"""EncoderMethod: one way to make an encoder with a position table read longer texts, as a frozen object."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from ropewalk.errors import MethodError
from ropewalk.methods.filled import Choice, filled, reasons
from ropewalk.methods.grammar import spell
from ropewalk.registry import Registry

LONGEMBED = """@inproceedings{zhu2024longembed,
  title={{LongEmbed}: Extending Embedding Models for Long Context Retrieval},
  author={Zhu, Dawei and Wang, Liang and Yang, Nan and others}, booktitle={EMNLP}, year={2024}}"""


@dataclass(frozen=True, kw_only=True)
class EncoderMethod(ABC):
    """One way to read texts beyond the trained length of an encoder.

    A field that is None is filled from the target length by one documented rule (`choose`). Texts within the trained
    length give what the original model gives, to the bit.

    Attributes:
        log_n: multiply the queries of a text by max(1, ln n / ln L), n its tokens without padding, L the
            trained length (arXiv 2404.12096, which does so for every model).
    """

    name: ClassVar[str]
    paper: ClassVar[str] = "arXiv 2404.12096"
    bibtex: ClassVar[str] = LONGEMBED
    kind: ClassVar[Literal["table"]] = "table"
    needs: ClassVar[Literal["nothing", "training"]] = "nothing"

    log_n: bool = False

    def choose(self, length: int, target_length: int) -> dict[str, Choice]:
        """A value and a reason for every field that can be left out; only those that are None are taken."""
        return {}

    def check(self, length: int, target_length: int) -> None:
        """Raise MethodError when the filled method does not fit a trained length and a target, both in tokens."""
        if target_length < length:
            raise MethodError(
                f"{self.name}: the target of {target_length} tokens is below the {length} that the model was trained "
                f"on; give a target of at least {length}, or take none"
            )

    @abstractmethod
    def natural_length(self, length: int) -> int | None:
        """The target when none is given: what the method reaches as it was given; None where it has no end."""

    def resolve(self, length: int, target_length: int) -> Self:
        """The same method with every field filled for this trained length and target, and checked."""
        method = filled(self, self.choose(length, target_length))
        method.check(length, target_length)
        return method

    def why(self, length: int, target_length: int) -> dict[str, Choice]:
        """Every field with its value and where it comes from: given by the user, or the rule that filled it."""
        return reasons(self, self.resolve(length, target_length), self.choose(length, target_length))

    def __str__(self) -> str:
        """The method in the grammar of the command line; `parse_table` reads it back."""
        return spell(self)


TABLE_METHODS: Registry[type[EncoderMethod]] = Registry("method for position tables", MethodError)


@dataclass(frozen=True, kw_only=True)
class TableMethod(EncoderMethod):
    """A method that is a longer position table, and a stride that brings short texts to the original's rows."""

    @property
    def stride(self) -> int:
        """Rows of the longer table from one row of the original to the next: a short text takes every stride-th."""
        return 1

    @abstractmethod
    def rows(self, table: np.ndarray, count: int) -> np.ndarray:
        """The longer table of the filled method.

        Args:
            table: the original rows, float64 [L, hidden].
            count: rows wanted.

        Returns:
            float64 [count, hidden].
        """


def spread(length: int, target_length: int) -> int:
    """s = ceil(target / trained), at least 1: what one original row stretches to."""
    return max(1, math.ceil(target_length / length))


def require_reach(method: EncoderMethod, field: str, length: int, target_length: int) -> None:
    """Raise MethodError unless the filled field is a whole number above 0 and reaches the target."""
    value = getattr(method, field)
    if value < 1:
        raise MethodError(f"{method.name}: {field} must be a whole number, at least 1, got {value}")
    if length * value < target_length:
        raise MethodError(
            f"{method.name}: {field} {value} reaches {length * value} tokens on a table of {length}, wanted "
            f"{target_length}; raise it or leave it out"
        )
