"""A sweep on the workers of a Ray cluster: they measure, and this process stores what they send back."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ropewalk.errors import EvaluationError, RopewalkError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.estimate import Known, estimate, known_seconds
from ropewalk.evaluate.row import Key
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import Finished, feasible
from ropewalk.evaluate.unit import Setup, Unit

# Workers that may be lost before the sweep gives up: what kills every worker (too little memory) is told after that.
LOSSES = 2


class Measurer:
    """What each Ray actor holds: a loaded model, on a GPU where the actor was given one."""

    def __init__(self, source: str, setup: Setup, longest: int) -> None:
        from ropewalk.models.loading import accelerator, load_model

        model, tokenizer = load_model(source, target_length=longest, device=accelerator())
        self.bench = Bench(model, tokenizer, name=source, setup=setup)

    def feasible(self, units: Sequence[Unit]) -> Any:
        """See `ropewalk.evaluate.sweep.feasible`."""
        return feasible(self.bench, units)

    def estimate(self, pending: Sequence[Unit], known: Known) -> dict[str, Any]:
        """See `ropewalk.evaluate.estimate.estimate`."""
        return estimate(self.bench, pending, known).to_json()

    def key(self, unit: Unit) -> Key:
        """See `Bench.key`."""
        return self.bench.key(unit)

    def measure(self, unit: Unit) -> Any:
        """See `Bench.measure`; an error of ours comes back as a value, so that its message stays one line."""
        try:
            return self.bench.measure(unit, lambda stage, fraction: None)
        except RopewalkError as error:
            return error


def sweep_on_ray(
    source: str,
    units: Sequence[Unit],
    setup: Setup,
    store: Path,
    *,
    address: str,
    workers: int,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Finished:
    """Sweep with `workers` Ray actors, one model each.

    A worker that dies loses the sample in flight: another is started in its place, and the sample is tried again.
    Where the cluster has GPUs, each worker gets one.

    The store stays with this process: SQLite does not work over a network.

    Args:
        source: of the model; a name that every machine of the cluster can load.
        address: of the cluster, as `ray.init` takes it; "local" starts one on this machine.

    Raises:
        EvaluationError: Ray is not installed, the cluster is not there, or more than LOSSES workers were lost for every
            one asked for; what is stored is kept.
        RopewalkError: whatever stops a worker, with its message.
    """
    try:
        import ray
        from ray.exceptions import RayActorError, RayTaskError
    except ImportError as error:
        raise EvaluationError("Ray is not installed; pip install 'ropewalk[ray]', or leave out --ray") from error

    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise EvaluationError(f"no Ray cluster at {address!r} ({error}); start one, or give local") from error
    done = Finished()
    try:
        with Store(store) as kept:
            _share(ray, source, units, setup, kept, done, workers=workers, on_event=on_event)
    except RayActorError as error:
        raise EvaluationError(f"a Ray worker was lost ({error}); what is stored is kept: run it again") from error
    except RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, RopewalkError) else EvaluationError(str(cause)) from error
    finally:
        ray.shutdown()
    return done


def _share(
    ray: Any,
    source: str,
    units: Sequence[Unit],
    setup: Setup,
    store: Store,
    done: Finished,
    *,
    workers: int,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> None:
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    actor = ray.remote(num_gpus=gpus, num_cpus=1)(Measurer)
    longest = max(unit.length for unit in units)
    idle = [actor.remote(source, setup, longest) for _ in range(workers)]
    spare = LOSSES * workers
    units, remarks = ray.get(idle[0].feasible.remote(list(units)))
    keys = ray.get([idle[0].key.remote(unit) for unit in units])
    waiting = list(zip(units, keys, strict=True))
    if on_event:
        pending = [unit for unit, key in waiting if not store.done(key)]
        left = ray.get(idle[0].estimate.remote(pending, known_seconds(store, source)))
        on_event({"estimate": left, "remarks": remarks})
    running: dict[Any, tuple[Any, Unit, Key]] = {}

    def say(unit: Unit, stage: str, fraction: float) -> None:
        if on_event:
            on_event({"unit": unit.to_json(), "stage": stage, "fraction": fraction})

    while waiting or running:
        while waiting and idle:
            unit, key = waiting.pop(0)
            if not store.claim(key):  # stored, or measured by another process: that one stores it
                say(unit, "done", 1.0)
                continue
            say(unit, "read", 0.0)
            measurer = idle.pop()
            running[measurer.measure.remote(unit)] = (measurer, unit, key)
        if not running:
            break
        [ready], _ = ray.wait(list(running), num_returns=1)
        measurer, unit, key = running.pop(ready)
        try:
            row = ray.get(ready)
        except ray.exceptions.RayActorError:
            if spare == 0:
                raise
            spare -= 1
            store.release(key)
            waiting.insert(0, (unit, key))
            idle.append(actor.remote(source, setup, longest))
            continue
        idle.append(measurer)
        say(unit, "done", 1.0)
        if isinstance(row, EvaluationError):  # of this document alone: the others may have a score
            store.release(key)
            done.failures.append(f"{key}: {row}")
        elif isinstance(row, RopewalkError):
            raise row
        elif all(map(math.isfinite, row.scores)):
            store.append(row)
            done.measured += 1
        else:
            store.release(key)
            done.failures.append(f"{key}: its scores are not finite numbers")
    done.keys = [key for key in dict.fromkeys(keys) if store.done(key)]
