"""A sweep: units are measured one by one, and each is in the store before the next begins."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.estimate import Estimate, estimate, known_seconds
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.row import Key, Row
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Setup, Unit

# Between looks at samples that another process measures.
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Step:
    """Where a sweep stands.

    Attributes:
        unit: that is measured.
        stage, fraction: "attach", "read", "ask", or "done" when it is stored, and how much of that is done.
    """

    unit: Unit
    stage: str
    fraction: float


@dataclass
class Finished:
    """What a sweep left behind.

    Attributes:
        keys: of all its units that are stored, in the order of work.
        measured: how many of them this sweep measured.
        failures: what could not be scored, and why; they are not stored.
    """

    keys: list[Key] = field(default_factory=list)
    measured: int = 0
    failures: list[str] = field(default_factory=list)

    def refuse_failures(self) -> None:
        """Raise EvaluationError where something failed."""
        if self.failures:
            raise EvaluationError(f"{len(self.failures)} samples have no score; the first: {self.failures[0]}")


def sweep(
    bench: Bench,
    units: Sequence[Unit],
    store: Store,
    *,
    progress: Callable[[Step], None] | None = None,
    before: Callable[[Estimate, list[str]], None] | None = None,
) -> Finished:
    """Measure what the store does not hold yet; what another live process measures is waited for.

    Killed at any moment, the same call goes on where it stopped.

    Args:
        before: called once before the first sample, with what is left to do and the remarks on what was left out.

    Raises:
        EvaluationError: a document that cannot be built, a prompt that calibration used, or a store that cannot be
            written; what is stored is kept.
    """
    done = Finished()
    say = progress or (lambda step: None)
    units, remarks = feasible(bench, units)
    if before:
        pending = [unit for unit in units if not store.done(bench.key(unit))]
        before(estimate(bench, pending, known_seconds(store, bench.name)), remarks)
    waiting = list(units)
    while waiting:
        held = []
        for unit in waiting:
            say(Step(unit, "attach", 0.0))
            key = bench.key(unit)
            if store.done(key):
                say(Step(unit, "done", 1.0))
            elif not store.claim(key):
                held.append(unit)
            elif not _measure(bench, unit, store, done, say):
                store.release(key)
        if len(held) == len(waiting):
            time.sleep(WAIT_SECONDS)
        waiting = held
    keys = dict.fromkeys(bench.key(unit) for unit in units)
    done.keys = [key for key in keys if store.done(key)]
    return done


def feasible(bench: Bench, units: Sequence[Unit]) -> tuple[list[Unit], list[str]]:
    """Build the first document of every task, length and control: what cannot be is said now, not after hours.

    Returns:
        The units that can be measured, and a remark on each of the others: those that were added for comparison only.

    Raises:
        EvaluationError: a document that was asked for cannot be built.
    """
    kinds: dict[tuple[str, int, str, bool], Unit] = {}
    for unit in units:
        kinds.setdefault((unit.task, unit.length, unit.control, unit.extra), unit)
    impossible = {}
    for kind, unit in kinds.items():
        try:
            bench.prepare(unit)
        except EvaluationError as error:
            if not unit.extra:
                raise
            impossible[kind] = f"{unit.task} at {unit.length}, {unit.label}: left out; {error}"
    kept = [unit for unit in units if (unit.task, unit.length, unit.control, unit.extra) not in impossible]
    return kept, list(impossible.values())


def _measure(bench: Bench, unit: Unit, store: Store, done: Finished, say: Callable[[Step], None]) -> bool:
    """Measure and store one unit; False where it has no finite score."""
    store.refuse_calibration([prompt_sha256(bench.document(unit).ids)])
    try:
        row = bench.measure(unit, lambda stage, fraction: say(Step(unit, stage, fraction)))
    except EvaluationError as error:  # of this document alone: the others may have a score
        done.failures.append(f"{unit.task} at {unit.length}, {unit.label}, document {unit.document}: {error}")
        return False
    finally:
        say(Step(unit, "done", 1.0))
    if not all(map(math.isfinite, row.scores)):
        done.failures.append(f"{row.key}: its scores are not finite numbers")
        return False
    store.append(row)
    done.measured += 1
    return True


def work(
    report: Callable[[dict[str, Any]], None],
    *,
    source: str,
    units: list[dict[str, Any]],
    setup: dict[str, Any],
    store: str,
    estimates: bool,
) -> dict[str, Any]:
    """In a process of its own (see `ropewalk.execution`): load the model and sweep; several share units by claims."""
    from ropewalk.models.loading import accelerator, load_model

    listed = [Unit(**unit) for unit in units]
    longest = max(unit.length for unit in listed)
    model, tokenizer = load_model(source, target_length=longest, device=accelerator())
    last: tuple[Unit, str, int] | None = None

    def progress(step: Step) -> None:
        nonlocal last
        now = (step.unit, step.stage, int(20 * step.fraction))
        if now != last:
            last = now
            report({"unit": step.unit.to_json(), "stage": step.stage, "fraction": step.fraction})

    def before(left: Estimate, remarks: list[str]) -> None:
        report({"estimate": left.to_json(), "remarks": remarks})

    with Bench(model, tokenizer, name=source, setup=Setup(**setup)) as bench, Store(store) as opened:
        done = sweep(bench, listed, opened, progress=progress, before=before if estimates else None)
    return {"keys": [key.to_text() for key in done.keys], "measured": done.measured, "failures": done.failures}


def collect(store: Store, keys: Sequence[Key]) -> list[Row]:
    """The rows of keys, in their order."""
    return [store.row(key) for key in keys]
