"""Start a sweep from a model's name: in processes of its own, with as many workers as were asked for."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.evaluate.row import Key
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import Finished
from ropewalk.evaluate.unit import Setup, Unit
from ropewalk.execution import Cell, run_cells

_WORK = "ropewalk.evaluate.sweep:work"
# A worker that dies lost the sample in flight, no more: it is started again, at most so often. What kills every worker
# (too little memory) is told after that.
RETRIES = 2


def launch(
    source: str,
    units: Sequence[Unit],
    setup: Setup,
    store: Path,
    *,
    workers: int = 1,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Finished:
    """Sweep in `workers` processes that share the cores, and the work by claims in the store.

    Args:
        source: of the model, for `ropewalk.models.loading.load_model`; every worker loads it.
        on_event: called with {"unit", "stage", "fraction"} by any worker, and once with {"estimate", "remarks"} by the
            first.

    Raises:
        RopewalkError: whatever stops a worker, with its message; what is stored is kept.
    """
    Store(store).close()  # an unusable file is an error before a model is loaded
    arguments = {
        "source": source,
        "units": [unit.to_json() for unit in units],
        "setup": setup.to_json(),
        "store": str(store),
    }
    cells = [Cell(f"worker {index}", _WORK, arguments | {"estimates": index == 0}) for index in range(workers)]
    outcomes = run_cells(
        cells,
        workers=workers,
        threads=threads_of_each(workers),
        retries=RETRIES,
        on_event=lambda _, event: on_event(event) if on_event else None,
    )
    values = [outcome.value for outcome in outcomes.values()]
    return Finished(
        keys=[Key(**json.loads(text)) for text in values[0]["keys"]],
        measured=sum(value["measured"] for value in values),
        failures=list(dict.fromkeys(failure for value in values for failure in value["failures"])),
    )


def threads_of_each(workers: int) -> int:
    """Threads of a worker: what OMP_NUM_THREADS says, else an equal share of the cores that this process may use.

    On a busy machine more threads than free cores wait for one another at every step: generating took 0.7 to 3.5 s a
    token with two threads beside two other processes on two cores.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // workers)
