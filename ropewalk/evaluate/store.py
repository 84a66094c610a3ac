"""The store: one SQLite file that samples are appended to as they are measured, and that a sweep continues from."""

import contextlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.row import Key, Row

SCHEMA = 1
APPLICATION = 0x726F7065  # "rope", in SQLite's application_id: tells a store from any other database
BUSY_SECONDS = 60.0
# Two clocks of one process start may differ by rounding; two processes of one number start further apart.
START_TOLERANCE_SECONDS = 2.0

_TABLES = (
    """CREATE TABLE samples (
        id INTEGER PRIMARY KEY,
        task TEXT NOT NULL, protocol TEXT NOT NULL, template TEXT NOT NULL,
        resolved TEXT NOT NULL, control TEXT NOT NULL, plan_sha256 TEXT NOT NULL, length INTEGER NOT NULL,
        seed INTEGER NOT NULL, document INTEGER NOT NULL,
        model_sha256 TEXT NOT NULL, tokenizer_sha256 TEXT NOT NULL, corpus_sha256 TEXT NOT NULL,
        dtype TEXT NOT NULL, backend TEXT NOT NULL,
        method TEXT NOT NULL, model TEXT NOT NULL, corpus TEXT NOT NULL, target_length INTEGER NOT NULL,
        prompt_sha256 TEXT NOT NULL,
        metric TEXT NOT NULL, scores TEXT NOT NULL, n INTEGER NOT NULL, reached INTEGER NOT NULL,
        seconds REAL NOT NULL, prefill_seconds REAL NOT NULL, cpu_seconds REAL NOT NULL, peak_bytes INTEGER,
        device TEXT NOT NULL, details TEXT NOT NULL, versions TEXT NOT NULL,
        UNIQUE (task, protocol, template, resolved, control, plan_sha256, length, seed, document,
                model_sha256, tokenizer_sha256, corpus_sha256, dtype, backend)
    )""",
    "CREATE TABLE claims (key TEXT PRIMARY KEY, process INTEGER NOT NULL, began REAL NOT NULL)",
    "CREATE TABLE calibration (prompt_sha256 TEXT PRIMARY KEY, used_by TEXT NOT NULL)",
)
_KEY = tuple(field.name for field in fields(Key))
_COLUMNS = _KEY + tuple(field.name for field in fields(Row) if field.name != "key")
_JSON = ("scores", "details", "versions")
_SAME_KEY = " AND ".join(f"{name} = ?" for name in _KEY)


class Store:
    """Samples on a local disk (SQLite's write-ahead log does not work over a network).

    Every append is one transaction, on the disk when the call returns: a process killed at any moment, a torn write or
    a full disk lose at most the sample in flight. Several processes may read and write at once; within a process, one
    Store in one thread.

    Args:
        path: of the file.
        create: make the file, and its folder, where there is none.

    Raises:
        EvaluationError: there is none and `create` is false, it cannot be opened, or it is no store of this version.
    """

    def __init__(self, path: str | Path, *, create: bool = True) -> None:
        self.path = Path(path)
        if not create and not self.path.exists():
            raise EvaluationError(f"there is no store at {str(path)!r}; give the path of one, or run `ropewalk eval`")
        self._claimed: set[str] = set()
        with self._explained("cannot open it"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained("cannot open it"):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what this store claimed and did not measure, and close the file."""
        # Where even that cannot be written, the end of this process frees the claims.
        with contextlib.suppress(sqlite3.Error), self._db:
            self._db.executemany("DELETE FROM claims WHERE key = ?", [(text,) for text in self._claimed])
        self._db.close()

    def done(self, key: Key) -> bool:
        """Whether the sample is stored."""
        with self._explained("cannot read it"):
            return self._db.execute(f"SELECT 1 FROM samples WHERE {_SAME_KEY}", astuple(key)).fetchone() is not None

    def claim(self, key: Key) -> bool:
        """Say that this process measures a sample now.

        Returns:
            False when the sample is stored, or when another process that is alive measures it: take the next one.

        Raises:
            EvaluationError: the claim cannot be written.
        """
        text = key.to_text()
        with self._transaction(f"cannot begin {key}"):
            if self.done(key):
                return False
            holder = self._db.execute("SELECT process, began FROM claims WHERE key = ?", (text,)).fetchone()
            if holder and holder[0] != os.getpid() and _alive(*holder):
                return False
            mine = (text, os.getpid(), psutil.Process().create_time())
            self._db.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", mine)
        self._claimed.add(text)
        return True

    def release(self, key: Key) -> None:
        """Give a claim back without a sample."""
        with self._transaction(f"cannot give {key} back"):
            self._db.execute("DELETE FROM claims WHERE key = ?", (key.to_text(),))
        self._claimed.discard(key.to_text())

    def interrupted(self) -> list[Key]:
        """Samples that were in flight when the process that measured them ended: lost, and to be measured again."""
        with self._explained("cannot read it"):
            held = self._db.execute("SELECT key, process, began FROM claims ORDER BY key").fetchall()
        return [Key(**json.loads(text)) for text, process, began in held if not _alive(process, began)]

    def append(self, row: Row) -> bool:
        """Store a sample for good.

        Returns:
            False when another process was faster: its sample stays.

        Raises:
            EvaluationError: a score that is not a finite number, a prompt that calibration used, or a write that
                failed; what was stored before stays, and the same row may be appended again.
        """
        if not row.scores or not all(map(math.isfinite, row.scores)):
            raise EvaluationError(f"{row.key}: wanted finite scores, got {row.scores}; the sample is not stored")
        self.refuse_calibration([row.prompt_sha256])
        values = {name: getattr(row, name) for name in _COLUMNS[len(_KEY) :]}
        values |= {name: json.dumps(values[name]) for name in _JSON}
        statement = f"INSERT INTO samples ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
        with self._transaction(f"cannot store {row.key}"):
            added = self._db.execute(f"{statement} ON CONFLICT DO NOTHING", (*astuple(row.key), *values.values()))
            self._db.execute("DELETE FROM claims WHERE key = ?", (row.key.to_text(),))
        self._claimed.discard(row.key.to_text())
        return added.rowcount == 1

    def row(self, key: Key) -> Row:
        """The sample of a key.

        Raises:
            EvaluationError: it is not stored.
        """
        statement = f"SELECT {', '.join(_COLUMNS)} FROM samples WHERE {_SAME_KEY}"
        with self._explained("cannot read it"):
            found = self._db.execute(statement, astuple(key)).fetchone()
        if found is None:
            raise EvaluationError(f"no sample of {key} is stored; run `ropewalk eval` for it")
        return _row(found)

    def rows(self, **wanted: Any) -> list[Row]:
        """The samples whose fields have the wanted values, ordered by task, length, method, seed and document.

        Args:
            wanted: by field of Key or Row: a value, or a list, tuple or set of values any of which will do.

        Raises:
            EvaluationError: no such field, or the file cannot be read.
        """
        conditions, values = ["1"], []
        for name, value in wanted.items():
            if name not in _COLUMNS or name in _JSON:
                raise EvaluationError(f"samples cannot be chosen by {name!r}; choose by one of {', '.join(_COLUMNS)}")
            choices = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
            conditions.append(f"{name} IN ({', '.join('?' * len(choices))})")
            values += choices
        order = "task, length, resolved, seed, document, id"
        statement = f"SELECT {', '.join(_COLUMNS)} FROM samples WHERE {' AND '.join(conditions)} ORDER BY {order}"
        with self._explained("cannot read it"):
            return [_row(columns) for columns in self._db.execute(statement, values)]

    def mark_calibration(self, hashes: Iterable[str], *, used_by: str) -> None:
        """Remember prompts, by `prompt_sha256`, that calibration saw; `used_by` names the profile for messages."""
        with self._transaction("cannot mark calibration prompts"):
            marked = [(each, used_by) for each in hashes]
            self._db.executemany("INSERT INTO calibration VALUES (?, ?) ON CONFLICT DO NOTHING", marked)

    def calibration(self) -> dict[str, str]:
        """Hashes of the prompts that calibration saw, with what they were used by."""
        with self._explained("cannot read it"):
            return dict(self._db.execute("SELECT prompt_sha256, used_by FROM calibration").fetchall())

    def refuse_calibration(self, hashes: Iterable[str]) -> None:
        """Raise EvaluationError when one of these prompts was used to calibrate."""
        hashes = list(hashes)
        question = "SELECT used_by FROM calibration WHERE prompt_sha256 = ?"
        with self._explained("cannot read it"):
            found = [name for each in hashes for (name,) in self._db.execute(question, (each,))]
        if found:
            raise EvaluationError(
                f"{len(found)} of {len(hashes)} prompts were used to calibrate {', '.join(sorted(set(found)))}; "
                f"test on others: take another seed"
            )

    def _prepare(self) -> None:
        """Check what the file is, and make the tables in a new one."""
        self._db.execute("PRAGMA synchronous = FULL")
        self._check()
        # Two that open a new file at once: SQLite answers the second "locked" without waiting.
        deadline = time.monotonic() + BUSY_SECONDS
        while self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._check() == 0:
                for statement in _TABLES:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _check(self) -> int:
        """The schema version, 0 for an empty file; raises EvaluationError unless this version can use the file."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (tables or version):
            raise EvaluationError(f"{str(self.path)!r} is a database, but no store of ropewalk; give another path")
        if version > SCHEMA:
            raise EvaluationError(
                f"the store {str(self.path)!r} has schema {version}, this ropewalk knows up to {SCHEMA}; "
                f"update ropewalk, or give another path"
            )
        return version

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EvaluationError(
                f"the store {str(self.path)!r}: {what} ({error}); what was stored before is kept: "
                f"mend the cause and run the same command again"
            ) from error

    @contextlib.contextmanager
    def _transaction(self, what: str) -> Iterator[None]:
        with self._explained(what), self._db:  # commits, or rolls back when anything was raised
            self._db.execute("BEGIN IMMEDIATE")
            yield


def _row(columns: tuple[Any, ...]) -> Row:
    values = dict(zip(_COLUMNS, columns, strict=True))
    values |= {name: json.loads(values[name]) for name in _JSON}
    key = Key(**{name: values.pop(name) for name in _KEY})
    return Row(key, **values | {"scores": tuple(values["scores"])})


def _alive(process: int, began: float) -> bool:
    """Whether the process with this number is still the one that began then, and not only waits to be reaped."""
    try:
        found = psutil.Process(process)
        same = abs(found.create_time() - began) < START_TOLERANCE_SECONDS
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
