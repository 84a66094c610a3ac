"""Run independent cells, each in a process of its own: own threads, own peak memory, events streamed back.

A cell is a function named by text and arguments that are plain JSON, so that nothing of the parent is pickled or
imported, and a child's memory is its own. The parent need not load torch.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import ropewalk.errors
from ropewalk.errors import EvaluationError, RopewalkError

# Libraries read these when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Left alone, glibc keeps freed blocks for itself, how many differs from run to run: the same work was seen to peak at
# 1.0 to 1.6 GiB. Blocks from 16 MiB on given back at once cost 5% of the time and bring the spread down to 0.15 GiB.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(16 * 2**20)}


@dataclass(frozen=True)
class Cell:
    """A piece of work.

    Attributes:
        key: its name among the cells of a run.
        function: "module:name" of f(report, **arguments), whose value is plain JSON; report(event) sends a dict back.
        arguments: plain JSON.
    """

    key: str
    function: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a cell returned, and the most memory that its process held, in bytes."""

    value: Any
    peak_bytes: int


def run_cells(
    cells: Sequence[Cell],
    *,
    workers: int,
    threads: int,
    retries: int = 0,
    on_event: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Outcome]:
    """Run cells, `workers` at a time, each with `threads` threads; the first that fails ends them all.

    Args:
        retries: how often a cell whose process dies (killed, out of memory, a crash) is begun again. One that ends with
            an error of ours is not: it would say the same again.
        on_event: called in this thread with a cell's key and an event that it reported.

    Returns:
        Outcomes by key, in the order of `cells`.

    Raises:
        RopewalkError: of the kind that the cell raised, with its message; EvaluationError with the end of the child's
            stderr where it ended in another way.
    """
    assert len({cell.key for cell in cells}) == len(cells), "keys of cells are unique"
    messages: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
    waiting = list(cells)
    named = {cell.key: cell for cell in cells}
    deaths = dict.fromkeys(named, 0)
    running: dict[str, _Child] = {}
    outcomes: dict[str, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                cell = waiting.pop(0)
                running[cell.key] = _Child(cell, threads, messages)
            key, message = messages.get()
            if "event" in message:
                if on_event:
                    on_event(key, message["event"])
                continue
            child = running.pop(key)
            child.end(now=False)
            if "error" in message:
                raise _error(message["error"], message["text"])
            if "value" not in message:
                deaths[key] += 1
                if deaths[key] <= retries:
                    waiting.insert(0, named[key])
                    continue
                raise EvaluationError(f"the process of {key} ended early (exit code {child.code}): {child.last_words}")
            outcomes[key] = Outcome(message["value"], message["peak_bytes"])
    finally:
        for child in running.values():
            child.end(now=True)
    return {cell.key: outcomes[cell.key] for cell in cells}


class _Child:
    """A running process; a thread of its own passes on what it prints."""

    def __init__(self, cell: Cell, threads: int, messages: queue.SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | ALLOCATOR
        # The child must find the package that runs here, installed or not.
        root = str(Path(ropewalk.__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `end`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ropewalk.execution"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
        )
        self.code: int | None = None
        self.last_words = ""
        self._reader = threading.Thread(target=self._read, args=(cell, messages), daemon=True)
        self._reader.start()

    def _read(self, cell: Cell, messages: queue.SimpleQueue[tuple[str, dict[str, Any]]]) -> None:
        assert self._process.stdin and self._process.stdout
        work = {"function": cell.function, "arguments": cell.arguments}
        with contextlib.suppress(BrokenPipeError):  # a child that died at once is told apart by its exit code
            self._process.stdin.write(json.dumps(work) + "\n")
            self._process.stdin.close()
        last: dict[str, Any] = {}
        with contextlib.suppress(json.JSONDecodeError):  # killed in the middle of a line
            for line in self._process.stdout:
                last = {}
                last = json.loads(line)
                if "event" in last:
                    messages.put((cell.key, last))
        messages.put((cell.key, {} if "event" in last else last))

    def end(self, *, now: bool) -> None:
        """Wait for a process that has said its last, or stop it now, and keep the end of its stderr."""
        if now:
            self._process.kill()
        self.code = self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self.last_words = lines[-1] if lines else "it said nothing"
        self._stderr.close()


def _error(kind: str, text: str) -> RopewalkError:
    return getattr(ropewalk.errors, kind)(text)


def peak_bytes() -> int:
    """The most memory that this process has held, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would start from the size of the process that forked this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _messages() -> Iterator[TextIO]:
    """The real stdout for messages; whatever else prints, C libraries included, goes to stderr."""
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)
        yield stream


def _work() -> None:
    """The child: read one cell from stdin, run it, write JSON lines."""
    work = json.loads(sys.stdin.readline())
    with _messages() as stream:

        def send(message: dict[str, Any]) -> None:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

        try:
            module, name = work["function"].split(":")
            value = getattr(import_module(module), name)(lambda event: send({"event": event}), **work["arguments"])
        except RopewalkError as error:
            send({"error": type(error).__name__, "text": str(error)})
        else:
            send({"value": value, "peak_bytes": peak_bytes()})


if __name__ == "__main__":
    _work()
