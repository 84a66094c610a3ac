"""Calibrate DPE to a model: the effective length of every group of rotary pairs (step 1), joined and confirmed."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ropewalk.calibrate import paper
from ropewalk.calibrate.axis import Axis, Setting, describe, extra_axes
from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.confirm import FRESH, Confirmation, confirm
from ropewalk.calibrate.halving import search
from ropewalk.calibrate.record import make_profile
from ropewalk.calibrate.request import Request, RunFile
from ropewalk.calibrate.rule import Curve
from ropewalk.calibrate.settle import (
    Say,
    fixed_fields,
    groupings,
    make_axes,
    make_trials,
    reserve,
    rivals,
    settle,
)
from ropewalk.calibrate.trials import Executor, Trials
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec


@dataclass(frozen=True)
class Found:
    """What a detection ends with; `confirmation` is None for the authors' protocol."""

    axes: tuple[Axis, ...]
    curves: tuple[Curve, ...]
    confirmation: Confirmation | None


def beside(out: Path, what: str) -> Path:
    """A file of the run of a profile: "trials.db", "run.json", "keys.json"."""
    return out.with_suffix(f".{what}")


def require_out(out: Path) -> None:
    """Raise EvaluationError where no profile can be saved as `out`."""
    if out.suffix != ".json":
        raise EvaluationError(f"cannot save a profile as {str(out)!r}; its name must end in .json")
    if not out.parent.is_dir():
        raise EvaluationError(f"cannot save {str(out)!r}: there is no folder {str(out.parent)!r}; make it first")


def require_request(request: Request, spec: RotarySpec, out: Path) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        EvaluationError: a target below the trained window, a budget, axis or corpus that is not, or an output that
            cannot be written.
    """
    require_out(out)
    if request.target_length < spec.pretrained_length:
        raise EvaluationError(
            f"a target of {request.target_length} tokens is below the trained window of {spec.pretrained_length}; "
            f"calibrate for {spec.pretrained_length} tokens or more"
        )
    parse_budget(request.budget)
    extra_axes(spec, request.target_length, request.search)
    groupings(request, spec)
    corpora.load(request.corpus)


def run(
    request: Request,
    spec: RotarySpec,
    executor: Executor,
    out: Path,
    *,
    keys: Path | None = None,
    workers: int = 1,
    say: Say = lambda line: None,
    began: float | None = None,
) -> Profile:
    """Detect, join, confirm; the profile is not saved yet.

    Killed at any moment, the same call goes on where it stopped: trials are in the executor's store, and the budget in
    readings and the groups in the run file beside `out`. Every decision follows from these.

    Args:
        keys: profile with the key dimensions, or None for all pairs.
        workers: that the executor has.
        say: called with lines for people.
        began: `time.monotonic()` of the start, where minutes of the budget are gone already.

    Raises:
        EvaluationError: see `require_request`; a budget that does not hold one round; a run file of another request.
    """
    began = time.monotonic() if began is None else began
    require_request(request, spec, out)
    about = {
        "fingerprint": asdict(Fingerprint.of(spec)),
        "corpus_sha256": corpora.sha256(request.corpus),
        "keys": None if keys is None else str(keys),
    }
    record = RunFile(beside(out, "run.json"), request, about)
    fixed = fixed_fields(request, spec, keys)
    if "readings" not in record.settled:
        used = 0 if keys is None else Profile.load(keys).provenance["tokens"]
        record.settle(**settle(request, spec, executor, fixed, workers=workers, began=began, used=used, say=say))
    readings = record.settled["readings"]
    groups = [(first, last) for first, last in record.settled["groups"]]
    axes = make_axes(request, spec, groups)
    trials = make_trials(request, spec, executor, axes, fixed)
    if request.protocol == "paper":
        curves = paper.detect(axes, trials.measure, documents=min(request.documents, readings // paper.full_grid(axes)))
        _tell(curves, say)
        found = Found(axes, tuple(curves), None)
        kept = tuple(curve.chosen for curve in curves)
    else:
        found, kept = _default(request, spec, axes, trials, readings, say)
    profile = make_profile(request, spec, trials, found, kept, readings=readings, keys=keys, about=about)
    say(f"kept: {describe(axes, kept)}")
    return profile


def _default(
    request: Request, spec: RotarySpec, axes: tuple[Axis, ...], trials: Trials, readings: int, say: Say
) -> tuple[Found, Setting]:
    others = rivals(request, spec, axes)
    kept_back = reserve(readings, len(others) + 1, request)
    curves = search(axes, trials.measure, readings=readings - kept_back, rule=request.rule)
    _tell(curves, say)
    left = readings - sum(document < FRESH for _, document in trials.rows)
    joint = tuple(curve.chosen for curve in curves)
    say(f"together: {describe(axes, joint)}; {left} readings are left to confirm it")
    confirmation = confirm(joint, others, trials.measure, trials.losses, readings=left, rule=request.rule)
    say(confirmation.reason)
    return Found(axes, tuple(curves), confirmation), confirmation.setting


def _tell(curves: list[Curve], say: Say) -> None:
    for curve in curves:
        points = ", ".join(
            f"{point.value:g}: {point.mean:.3f}{' (stopped)' if point.outcome == 'stopped' else ''}"
            for point in curve.points
        )
        count = max(point.documents for point in curve.points)
        why = "" if curve.decided else "; too few documents, so the baseline stays"
        say(f"{curve.axis.label}: {points}; {curve.chosen:g} taken on {count} documents{why}")
