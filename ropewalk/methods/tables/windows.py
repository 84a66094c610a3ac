"""Parallel context windows: a long text is embedded in pieces."""

from dataclasses import dataclass
from typing import ClassVar

from ropewalk.errors import MethodError
from ropewalk.methods.tables.base import TABLE_METHODS, Choice, EncoderMethod


@TABLE_METHODS.register("parallel-windows")
@dataclass(frozen=True, kw_only=True)
class ParallelWindows(EncoderMethod):
    """Parallel context windows: pieces of a text are embedded apart, and their embeddings averaged.

    The pieces are runs of the text's token ids, each between the special tokens of a text of its own; the last one
    reaches back over its neighbour, so that all are of one length (arXiv 2404.12096). The average is taken
    before a normalising module, as the authors do; they decode pieces to text and tokenize again, which is not
    lossless.

    Attributes:
        window: tokens of a piece, its special tokens included. Left out: the trained length.
        overlap: tokens that a piece shares with the one before. Left out: none, as the authors have it.
    """

    name: ClassVar[str] = "parallel-windows"

    window: int | None = None
    overlap: int | None = None

    def choose(self, length: int, target_length: int) -> dict[str, Choice]:
        return {"window": (length, "the trained length"), "overlap": (0, "pieces side by side")}

    def check(self, length: int, target_length: int) -> None:
        super().check(length, target_length)
        assert self.window is not None and self.overlap is not None
        if not 1 <= self.window <= length:
            raise MethodError(f"{self.name}: window must be between 1 and {length} tokens, got {self.window}")
        if not 0 <= self.overlap < self.window:
            raise MethodError(f"{self.name}: overlap must be between 0 and {self.window - 1}, got {self.overlap}")
        if self.log_n:
            raise MethodError(f"{self.name}: no piece is longer than the trained length; leave log_n off")

    def natural_length(self, length: int) -> None:
        return None
