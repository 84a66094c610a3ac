"""Methods for encoders that add a row of a position table to every token: kept apart from those for rotary models."""

from ropewalk.errors import MethodError
from ropewalk.methods.grammar import parse_one
from ropewalk.methods.tables.base import TABLE_METHODS, EncoderMethod, TableMethod
from ropewalk.methods.tables.grouped import GroupedPositions
from ropewalk.methods.tables.interpolated import InterpolatedPositions
from ropewalk.methods.tables.recurrent import RecurrentPositions
from ropewalk.methods.tables.tuned import TunedPositions
from ropewalk.methods.tables.unchanged import UnchangedPositions
from ropewalk.methods.tables.windows import ParallelWindows


def parse_table(text: str) -> EncoderMethod:
    """The method that `text` names, `name:key=value,...`.

    Raises:
        MethodError: unknown name or parameter (with the nearest names), a value of the wrong type.
    """
    if "+" in text:
        raise MethodError(f"{text!r} joins methods; of those for a position table only one goes at a time")
    name, _, parameters = text.strip().partition(":")
    return parse_one(parameters, TABLE_METHODS.get(name.strip()))


__all__ = [
    "TABLE_METHODS",
    "EncoderMethod",
    "GroupedPositions",
    "InterpolatedPositions",
    "ParallelWindows",
    "RecurrentPositions",
    "TableMethod",
    "TunedPositions",
    "UnchangedPositions",
    "parse_table",
]
