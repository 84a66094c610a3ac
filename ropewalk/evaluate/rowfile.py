"""Rows as a text file, one JSON object a line: to keep in a repository, to ship, to read elsewhere."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.row import Key, Row


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows; the file is there whole or not at all.

    Raises:
        EvaluationError: it cannot be written.
    """
    text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise EvaluationError(
            f"cannot write {str(path)!r} ({error.strerror}); name a place that can be written to"
        ) from error


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote.

    Raises:
        EvaluationError: there is none, or a line of it is no row of this version.
    """
    if not path.is_file():
        raise EvaluationError(f"there are no rows at {str(path)!r}; give a file that was written by this version")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {str(path)!r} as UTF-8 text ({error}); give a file of rows") from error
    return _rows(text, str(path))


def shipped_rows() -> list[Row]:
    """The measurements that come with ropewalk; their settings and reading: docs/measurements."""
    folder = resources.files("ropewalk").joinpath("data", "measured")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".jsonl")), key=lambda file: file.name)
    return [row for file in files for row in _rows(file.read_text(encoding="utf-8"), file.name)]


def _rows(text: str, name: str) -> list[Row]:
    rows = []
    wanted = {field.name for field in fields(Row)}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values = json.loads(line)
            if set(values) != wanted:
                raise ValueError(f"fields {sorted(wanted ^ set(values))} are missing or unknown")
            values |= {"key": Key(**values["key"]), "scores": tuple(values["scores"])}
        except (ValueError, TypeError) as error:
            raise EvaluationError(f"line {number} of {name!r} is no row ({error}); write it anew") from error
        rows.append(Row(**values))
    return rows
