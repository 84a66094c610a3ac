"""Names for things: methods, backends and tasks are found by name, and a wrong name says which ones are near."""

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ropewalk.errors import RopewalkError

T = TypeVar("T")


def unknown(kind: str, name: str, known: list[str]) -> str:
    """The message for a name that is not in `known`: the closest names, then the full list."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f" did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"unknown {kind} {name!r};{hint} known: {', '.join(known)}"


class Registry(Generic[T]):
    """A mapping from names to objects of one kind.

    Args:
        kind: what is registered, in the words of the error message ("method", "backend", "task").
        error: the error raised for an unknown name.
    """

    def __init__(self, kind: str, error: type[RopewalkError]) -> None:
        self.kind = kind
        self.error = error
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an object under `name`; a second object under the same name is a programming error."""

        def add(entry: T) -> T:
            assert name not in self._entries, f"{self.kind} {name!r} is registered twice"
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The object filed under `name`; raises the registry's error with the nearest names otherwise."""
        if name not in self._entries:
            raise self.error(unknown(self.kind, name, self.names()))
        return self._entries[name]

    def names(self) -> list[str]:
        """All names in the order of registration."""
        return list(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
