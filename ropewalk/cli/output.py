"""What a verb writes: the answer goes to stdout, and everything else, third-party noise included, to stderr."""

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console


class Output:
    """Where a verb writes.

    Attributes:
        as_json: the user wants exactly one JSON object on stdout.
        answer: the real stdout.
        notes: a rich console on stderr, for progress and remarks.
        console: a rich console for what people read: stdout, or stderr where stdout is kept for JSON.
    """

    def __init__(self, as_json: bool, answer: TextIO) -> None:
        self.as_json = as_json
        self.answer = answer
        self.notes = _console(sys.stderr)
        self.console = self.notes if as_json else _console(answer)

    def write(self, text: str) -> None:
        """Stream a piece of the answer as it is; to stderr where stdout is kept for JSON."""
        stream = sys.stderr if self.as_json else self.answer
        stream.write(text)
        stream.flush()

    def finish(self, value: dict[str, Any]) -> None:
        """Print the one JSON object if it was asked for. A number that is not finite becomes null: JSON has none."""
        if self.as_json:
            self.answer.write(json.dumps(_finite(value), allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 120)


@contextlib.contextmanager
def opened(as_json: bool) -> Iterator[Output]:
    """Keep stdout for the answer: inside, whatever Python code, C code or child processes print lands on stderr."""
    stdout = sys.stdout
    stdout.flush()
    try:
        descriptor = stdout.fileno()
    except io.UnsupportedOperation:  # stdout is captured inside this process; there is no descriptor to protect
        with contextlib.redirect_stdout(sys.stderr):
            yield Output(as_json, stdout)
        return
    kept = os.dup(descriptor)
    os.dup2(2, descriptor)
    try:
        with (
            open(kept, "w", encoding=stdout.encoding, closefd=False) as answer,
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield Output(as_json, answer)
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
