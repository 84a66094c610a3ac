"""The text form of methods: `name:key=value,...`, a position and a frequency method joined by `+`.

Values are read by the type of the field: 4k is 4,096 for a whole number, a list is 1/1/4/4, a path stays a path.
"""

import types
import typing
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ropewalk.errors import MethodError
from ropewalk.lengths import parse_length
from ropewalk.registry import unknown

if TYPE_CHECKING:
    from ropewalk.methods.base import Method
    from ropewalk.methods.tables.base import EncoderMethod

M = TypeVar("M", bound="Method | EncoderMethod")

TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def written(method: type[Any]) -> dict[str, tuple[Field[Any], Any]]:
    """The fields of a method that can be written as text, with the type that reads each."""
    hints = typing.get_type_hints(method)
    return {f.name: (f, _bare(hints[f.name])) for f in fields(method) if f.metadata.get("written", True)}


def parse_one(text: str, method: type[M]) -> M:
    """Build `method` from the part of the text behind its name; raises MethodError for a wrong key or value."""
    known = written(method)
    values: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known:
            raise MethodError(f"{method.name}: " + unknown("parameter", key, list(known)))
        if not equals or not value.strip():
            raise MethodError(f"{method.name}: parameter {key!r} has no value; write {key}=VALUE")
        if key in values:
            raise MethodError(f"{method.name}: parameter {key!r} is given twice")
        field, kind = known[key]
        zero = value.strip() == "0" and field.metadata.get("zero", False)  # of a number of tokens that may be none
        values[key] = 0 if zero else _read(value.strip(), kind, f"{method.name}: {key}")
    return method(**values)


def format_value(value: Any) -> str:
    """A value as `parse_one` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(format_value(v) for v in value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).replace("e+", "e")
    return str(value)


def spell(method: "Method | EncoderMethod") -> str:
    """A method as the command line has it, `name:key=value,...`: what was given, without the defaults."""
    given = [(f.name, getattr(method, f.name)) for f in fields(method) if getattr(method, f.name) != f.default]
    return method.name + (":" + ",".join(f"{k}={format_value(v)}" for k, v in given) if given else "")


def type_name(kind: Any) -> str:
    """What to write for a field of this type, in the words of an error message."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Path: "a path"}
    return names.get(kind, "a list of numbers such as 1/1/4/4")


def _bare(hint: Any) -> Any:
    """The type behind an optional."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = [h for h in typing.get_args(hint) if h is not type(None)]
    return hint


def _read(text: str, kind: Any, where: str) -> Any:
    try:
        if kind is bool:
            return TRUTH[text.lower()]
        if kind is int:
            return parse_length(text, MethodError)
        if kind in (float, str, Path):
            return kind(text)
        return tuple(float(part) for part in text.split("/"))
    except (ValueError, KeyError, MethodError):
        raise MethodError(f"{where} wants {type_name(kind)}, got {text!r}") from None
