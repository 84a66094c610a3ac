"""A filled method as text and files that can be moved to another machine, and read back."""

from dataclasses import Field, fields, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from ropewalk.errors import ProfileError
from ropewalk.grid import Grid
from ropewalk.methods import Combined, Method, parse
from ropewalk.profile import is_shipped


def pack(method: Method, folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """The method as text whose paths are names in `folder`, where what they named is copied to.

    Args:
        method: every field filled.
        arrays: gets what the text cannot hold (a key-dimension mask), under "dpe.mask".

    Raises:
        ProfileError: a file that the method names is no longer there.
    """
    packed = []
    for part in _parts(method):
        changes: dict[str, Any] = {}
        for field in _given(part):
            value = getattr(part, field.name)
            if isinstance(value, Path) and is_shipped(value):
                continue  # it comes with ropewalk on the other machine too
            if isinstance(value, Path):
                if not value.exists():
                    raise ProfileError(f"{str(value)!r} of {part.name} is gone; put it back, or extend the model again")
                changes[field.name] = Path(f"{part.name}-{field.name}{value.suffix}")
                for suffix in {value.suffix, ".safetensors"}:  # a profile keeps its arrays beside it
                    if value.with_suffix(suffix).exists():
                        copyfile(value.with_suffix(suffix), folder / changes[field.name].with_suffix(suffix))
            elif isinstance(value, Grid) and not field.metadata.get("written", True):
                changes[field.name] = None
                arrays[f"{part.name}.{field.name}"] = value.array
        packed.append(str(replace(part, **changes)))
    return "+".join(packed)


def unpack(text: str, folder: Path, arrays: dict[str, np.ndarray]) -> Method:
    """Undo `pack`; raises ProfileError for a path out of the folder, and MethodError for text that is no method."""
    parts = []
    for part in _parts(parse(text)):
        changes: dict[str, Any] = {
            name: Grid(array) for name, array in ((f.name, arrays.get(f"{part.name}.{f.name}")) for f in fields(part))
            if array is not None
        }  # fmt: skip
        for field in _given(part):
            value = getattr(part, field.name)
            if isinstance(value, Path) and not is_shipped(value):
                if value.name != str(value):
                    raise ProfileError(f"{str(value)!r} is not a file of the sidecar; save it again")
                changes[field.name] = folder / value
        parts.append(replace(part, **changes))
    return parts[0] if len(parts) == 1 else Combined(position=parts[0], frequency=parts[1])  # type: ignore[arg-type]


def _parts(method: Method) -> tuple[Method, ...]:
    return (method.position, method.frequency) if isinstance(method, Combined) else (method,)


def _given(part: Method) -> list["Field[Any]"]:
    return [field for field in fields(part) if getattr(part, field.name) is not None]
