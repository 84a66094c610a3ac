"""Where training documents come from: text, JSONL, Parquet, a folder of `datasets`, or a bundled text."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.errors import EvaluationError, TrainingError
from ropewalk.evaluate import corpus

COLUMNS = ("text", "ids", "input_ids")  # the first that is there holds the document
BLOCK = 2**20  # bytes hashed at a time
ROWS = 1024  # of a Parquet file in memory at once


def stream(source: str) -> Iterator[str | list[int]]:
    """The documents of one source, each a text or a list of token ids, one after the other in memory.

    Args:
        source: a `.txt` file (one document), a `.jsonl` file (one a line), a `.parquet` file or a folder that
            `datasets` saved (one a row), each under "text", or under "ids" or "input_ids"; or a bundled text.

    Raises:
        TrainingError: a source that is missing, cannot be read or holds something else, with its line or row.
    """
    path = Path(source)
    if source.endswith(".jsonl"):
        return _lines(path)
    if source.endswith(".parquet"):
        return _rows(_parquet(path), source)
    if path.is_dir():
        return _rows(_dataset(path), source)
    return iter([_text(source)])


def digest(source: str) -> str:
    """SHA-256 of what a source holds, whatever its name.

    Raises:
        TrainingError: a source that is missing.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
    elif source.endswith((".jsonl", ".parquet")):
        files = [path]
    else:
        return hashlib.sha256(_text(source).encode()).hexdigest()
    found = hashlib.sha256()
    for file in files:
        found.update(f"\n{file.relative_to(path)}\n".encode())
        try:
            with file.open("rb") as opened:
                while block := opened.read(BLOCK):
                    found.update(block)
        except OSError as error:
            raise TrainingError(f"cannot read {str(file)!r} ({error.strerror}); give a file that exists") from error
    return found.hexdigest()


def _text(source: str) -> str:
    try:
        return corpus.load(source)
    except EvaluationError as error:
        raise TrainingError(
            f"cannot train on {source!r}: {error}; .txt, .jsonl and .parquet files and folders of datasets are read"
        ) from error


def _lines(path: Path) -> Iterator[str | list[int]]:
    try:
        with path.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                where = f"{str(path)!r}, line {number}"
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise TrainingError(f"{where}: {error}; wanted one JSON object a line") from error
                yield _document(value, where)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"cannot read {str(path)!r} ({error}); give a UTF-8 file, one JSON object a line"
        ) from error


def _document(value: Any, where: str) -> str | list[int]:
    """The text or the ids of one line or row."""
    named = value if isinstance(value, dict) else {}
    found = next((named[name] for name in COLUMNS if named.get(name) is not None), None)
    if isinstance(found, str):
        return found
    if isinstance(found, list) and all(type(one) is int and 0 <= one < 2**31 for one in found):
        return found
    raise TrainingError(f"{where}: wanted a text under 'text', or one list of token ids under 'ids' or 'input_ids'")


def _rows(rows: Iterator[dict[str, Any]], source: str) -> Iterator[str | list[int]]:
    for number, row in enumerate(rows, 1):
        yield _document(row, f"{source!r}, row {number}")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise TrainingError(
            "reading Parquet takes pyarrow, which is not installed; pip install 'ropewalk[train]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as opened:
            columns = [name for name in COLUMNS if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(ROWS, columns=columns):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise TrainingError(f"cannot read {str(path)!r} ({error}); give a Parquet file") from error


def _dataset(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise TrainingError(
            "reading a folder of datasets takes datasets, which is not installed; pip install 'ropewalk[train]'"
        ) from error
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"cannot read {str(path)!r} ({error}); give a folder that datasets' save_to_disk wrote"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        raise TrainingError(f"{str(path)!r} has the splits {sorted(found)}; give the folder of one of them")
    columns = [name for name in COLUMNS if name in found.column_names]
    yield from found.select_columns(columns)
