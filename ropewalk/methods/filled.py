"""Filling what a method leaves out, and saying where every value came from."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ropewalk.methods.base import Method
    from ropewalk.methods.tables.base import EncoderMethod

Choice = tuple[Any, str]  # a value and the reason for it
M = TypeVar("M", bound="Method | EncoderMethod")


def filled(method: M, chosen: dict[str, Choice]) -> M:
    """The method with every field that is None taken from `chosen`."""
    return replace(method, **{name: value for name, (value, _) in chosen.items() if getattr(method, name) is None})


def reasons(asked: M, method: M, chosen: dict[str, Choice]) -> dict[str, Choice]:
    """Every field of the filled method with its value and where it comes from: the user, or the rule that filled it."""
    result = {}
    for field in fields(asked):
        value = getattr(method, field.name)
        if getattr(asked, field.name) is None and field.name in chosen:
            result[field.name] = (value, chosen[field.name][1])
        elif value is not None:
            result[field.name] = (value, "given" if value != field.default else "default")
    return result
