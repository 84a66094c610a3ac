"""What a position sampler draws for one training sequence, and what every draw must hold."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.errors import TrainingError
from ropewalk.registry import Registry

Generator = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """One training sequence: which tokens of its document, at which positions, under which table.

    Attributes:
        tokens: places in the document, int64 [n], ascending.
        positions: position of each token, float64 [n], strictly ascending, in tokens of the table that goes with it.
        time: the length factor t of the table, at least 1: of CLEX, and for the log of others.
    """

    tokens: np.ndarray
    positions: np.ndarray
    time: float = 1.0

    def __post_init__(self) -> None:
        require_ascending(self.positions)

    @property
    def jumps(self) -> np.ndarray:
        """Tokens that do not follow the one before them in the document, bool [n]; the first does."""
        return np.diff(self.tokens, prepend=self.tokens[:1] - 1) != 1


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Positions for training sequences, drawn anew for every sample; a pure function of its generator."""

    name: ClassVar[str]
    paper: ClassVar[str]
    stretch: ClassVar[int] = 1  # sequence lengths of a document that one draw chooses its tokens from

    @abstractmethod
    def draw(self, generator: Generator, length: int, document: int) -> Drawn:
        """Positions for `length` tokens of a document.

        Args:
            length: n, tokens of the sequence.
            document: tokens of the document, at least n.
        Raises:
            TrainingError: a document that is too short, or a sequence longer than the sampler's range.
        """

    def spreads(self, length: int) -> bool:
        """Whether its range leaves room to do what it is for with sequences of this length."""
        return True


SAMPLERS: Registry[type[Sampler]] = Registry("position sampler", TrainingError)


def require_ascending(positions: np.ndarray) -> None:
    """Raise TrainingError, with the place, unless positions are finite, not negative and strictly ascending."""
    if not np.isfinite(positions).all() or (len(positions) > 0 and positions[0] < 0):
        raise TrainingError("positions must be finite and at least 0; check what the sampler was given")
    steps = np.diff(positions)
    if len(steps) and steps.min() <= 0:
        at = int(steps.argmin()) + 1
        raise TrainingError(
            f"positions must ascend from token to token, got {positions[at]:g} after {positions[at - 1]:g} at token "
            f"{at}; check the sampler"
        )


def require_document(length: int, document: int) -> None:
    """Raise TrainingError unless a document has the tokens of a sequence, which has one at least."""
    if not 1 <= length <= document:
        raise TrainingError(
            f"a sequence of {length} tokens was asked of a document of {document}; take shorter sequences or leave the "
            "document out"
        )


def require_range(name: str, length: int, farthest: int) -> None:
    """Raise TrainingError when a sequence is longer than the positions that it may take."""
    if length > farthest:
        raise TrainingError(
            f"{name}: a sequence of {length} tokens does not fit into {farthest} positions; take shorter sequences or "
            "a larger target length"
        )
