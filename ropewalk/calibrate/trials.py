"""Trials: one setting read on one document each, kept in a store of evaluation as they come."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.calibrate.axis import Axis, Setting, method_fields
from ropewalk.calibrate.rule import Scores
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.cluster import sweep_on_ray
from ropewalk.evaluate.launch import launch
from ropewalk.evaluate.row import Row
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import Step, collect, sweep
from ropewalk.evaluate.unit import Setup, Unit
from ropewalk.methods import DPE
from ropewalk.rotary import RotarySpec

# Runs of evaluation have small seeds, so no prompt of a calibration is one of theirs.
FIRST_SEED = 1_000_000
# Measures units, each stored before the next; rows in the order of the units. What is stored is not measured again.
Executor = Callable[[Sequence[Unit]], list[Row]]
# Called with {"unit", "stage", "fraction"} of any worker.
OnEvent = Callable[[dict[str, Any]], None]


def in_process(bench: Bench, store: Store, on_event: OnEvent) -> Executor:
    """With the model that is loaded."""

    def progress(step: Step) -> None:
        on_event({"unit": step.unit.to_json(), "stage": step.stage, "fraction": step.fraction})

    def run(units: Sequence[Unit]) -> list[Row]:
        done = sweep(bench, units, store, progress=progress)
        done.refuse_failures()
        return collect(store, done.keys)

    return run


def in_processes(
    source: str, setup: Setup, path: Path, on_event: OnEvent, *, workers: int, ray: str | None = None
) -> Executor:
    """In processes that load the model themselves, on this machine or on a Ray cluster; they share each round."""

    def passed_on(event: dict[str, Any]) -> None:
        if "unit" in event:
            on_event(event)

    def run(units: Sequence[Unit]) -> list[Row]:
        if ray is None:
            done = launch(source, units, setup, path, workers=workers, on_event=passed_on)
        else:
            done = sweep_on_ray(source, units, setup, path, address=ray, workers=workers, on_event=passed_on)
        done.refuse_failures()
        with Store(path) as store:
            return collect(store, done.keys)

    return run


class Trials:
    """What was measured so far, by setting and document.

    Args:
        fixed: fields of `dpe` that no axis sets: window, profile.
        hits: score by the task's own metric instead of the log-probabilities of the answers.

    Attributes:
        rows: by setting and document.
    """

    def __init__(
        self,
        executor: Executor,
        axes: Sequence[Axis],
        spec: RotarySpec,
        *,
        task: str,
        target_length: int,
        seed: int,
        fixed: dict[str, Any],
        hits: bool,
    ) -> None:
        self.rows: dict[tuple[Setting, int], Row] = {}
        self._executor = executor
        self._axes = axes
        self._spec = spec
        self._task = task
        self._target = target_length
        self._seed = seed
        self._fixed = fixed
        self._hits = hits

    def method(self, setting: Setting) -> str:
        """The method of a setting, as text."""
        return str(DPE(**self._fixed | method_fields(self._axes, setting, self._spec)))

    def unit(self, setting: Setting, document: int) -> Unit:
        """One trial, for an executor."""
        return trial(self._task, self.method(setting), self._target, seed=self._seed, document=document)

    def measure(self, wanted: Sequence[tuple[Setting, int]]) -> Scores:
        """Measure what is not known yet; all that is known."""
        missing = [each for each in dict.fromkeys(wanted) if each not in self.rows]
        if missing:
            rows = self._executor([self.unit(*each) for each in missing])
            self.rows |= dict(zip(missing, rows, strict=True))
        scores: dict[Setting, dict[int, list[float]]] = {}
        for (setting, document), row in self.rows.items():
            scores.setdefault(setting, {})[document] = self._facts(row)
        return scores

    def losses(self, setting: Setting) -> dict[int, list[float]]:
        """The loss of the last tokens of each document, nats per token; none where the task does not tell it."""
        return {
            document: [row.details["loss_last"]]
            for (one, document), row in self.rows.items()
            if one == setting and row.details.get("loss_last") is not None
        }

    def _facts(self, row: Row) -> list[float]:
        return list(row.scores) if self._hits else [answer["log_probability"] for answer in row.details["answers"]]


def trial(task: str, method: str, target_length: int, *, seed: int, document: int) -> Unit:
    """A unit of evaluation whose documents no run of `ropewalk eval` reads."""
    return Unit(task, target_length, method, "", target_length, FIRST_SEED + seed, document)
