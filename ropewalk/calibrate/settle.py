"""What is settled before a calibration begins: the budget in readings, and the groups that it can decide."""

from collections.abc import Callable, Sequence
from time import monotonic

from ropewalk.calibrate import paper
from ropewalk.calibrate.axis import (
    BORDERS,
    Axis,
    base_setting,
    default_values,
    extra_axes,
    groups_by_count,
    groups_by_wavelength,
    paper_values,
    plain_rule,
    scale_axes,
    varied,
)
from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.confirm import MOST, RULE, STOCK, UNIFORM
from ropewalk.calibrate.halving import grid, smallest
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.trials import Executor, Trials
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.row import Row
from ropewalk.methods.two_bands import local_window
from ropewalk.rotary import RotarySpec

# Of the readings, what a confirmation gets at least: one in so many.
CONFIRM_SHARE = 4
# Documents that each worker reads at most to time a reading: all but one of these were stored before.
TIMED = 8
Say = Callable[[str], None]
Groups = list[tuple[int, int]]  # first and last + 1 of the rotary pairs of each group


def settle(
    request: Request,
    spec: RotarySpec,
    executor: Executor,
    fixed: dict[str, object],
    *,
    workers: int,
    began: float,
    used: int,
    say: Say,
) -> dict[str, object]:
    """The budget in readings, and the groups that it can decide; what they cost is said.

    Minutes are turned into readings by the time that the first of them takes, which the search needs anyway.

    Args:
        fixed: fields of `dpe` that no axis sets.
        used: tokens that were read before, for key dimensions.

    Raises:
        EvaluationError: a budget that does not hold one round; one in tokens before anything is read.
    """
    target = request.target_length
    budget = parse_budget(request.budget)
    say(
        f"the authors' protocol reads {paper.GROUPS} groups x {len(paper_values(target))} scales x {paper.DOCUMENTS} "
        f"documents at this target: {authors_tokens(target):,} tokens"
    )
    seconds = 0.0
    if budget.tokens is None:
        say(f"reading {workers} of {target} tokens, to turn {request.budget} into tokens")
        seconds = _seconds(request, spec, executor, fixed, workers)
    readings = budget.readings(target, seconds=seconds, spent=monotonic() - began, used=used)
    groups = _decidable(request, spec, readings)
    axes = make_axes(request, spec, groups)
    say(
        f"{request.budget}: {readings} readings of {target} tokens, {readings * target:,} tokens; {len(groups)} groups "
        f"of rotary pairs, {len(grid(axes))} settings, {needed_readings(request, spec, axes)} readings at least"
    )
    seconds = seconds or _seconds(request, spec, executor, fixed, workers)
    say(f"a reading takes {seconds:.1f} s: about {readings * seconds / 60:.0f} minutes for all")
    return {"readings": readings, "groups": groups, "seconds_per_reading": seconds}


def _seconds(request: Request, spec: RotarySpec, executor: Executor, fixed: dict[str, object], workers: int) -> float:
    """What one reading takes, wall time, when all workers read: measured on the first readings of the search."""
    axes = make_axes(request, spec, groupings(request, spec)[0])
    published = request.protocol == "paper"
    setting = varied(axes, 0, axes[0].values[0]) if published else base_setting(axes)  # one of the grid
    trials = make_trials(request, spec, executor, axes, fixed)

    def read(documents: range) -> list[Row]:
        trials.measure([(setting, document) for document in documents])
        return [trials.rows[setting, document] for document in documents]

    return time_reading(read, workers=workers, documents=TIMED * workers)


def time_reading(read: Callable[[range], Sequence[Row]], *, workers: int, documents: int) -> float:
    """Seconds of wall time that one reading takes when all workers read.

    Documents whose rows come sooner than they can be read were stored by an earlier command, when the machine may have
    been busier or less so: the next ones are read instead.

    Args:
        read: rows of documents that the search reads anyway.
        documents: that may be read; the last ones tell where all are stored.
    """
    for first in range(0, max(1, documents - workers + 1), workers):
        began = monotonic()
        rows = read(range(first, first + workers))
        seconds = sum(row.seconds for row in rows) / len(rows)
        if monotonic() - began >= seconds / 2:
            break
    return seconds / workers


def _decidable(request: Request, spec: RotarySpec, readings: int) -> Groups:
    """The finest groups that so many readings decide."""
    needed = 0
    for groups in groupings(request, spec):
        needed = needed_readings(request, spec, make_axes(request, spec, groups))
        if needed <= readings:
            return groups
    target = request.target_length
    raise EvaluationError(
        f"a budget of {request.budget} holds {readings} readings of {target} tokens, and one round with its "
        f"confirmation takes {needed} ({needed * target:,} tokens); give a larger budget or fewer groups"
    )


def authors_tokens(target_length: int) -> int:
    """What the published protocol reads at a target: 8 groups x its candidates x 100 documents."""
    return paper.GROUPS * len(paper_values(target_length)) * paper.DOCUMENTS * target_length


def needed_readings(request: Request, spec: RotarySpec, axes: tuple[Axis, ...]) -> int:
    """Readings until every axis is decided on the fewest documents, and the result confirmed."""
    if request.protocol == "paper":
        return paper.full_grid(axes)
    contenders = len(rivals(request, spec, axes)) + 1
    return smallest(axes, request.rule) + contenders * request.rule.confirm_documents


def reserve(readings: int, contenders: int, request: Request) -> int:
    """Readings that are kept back for a confirmation among so many contenders."""
    least = contenders * request.rule.confirm_documents
    return min(contenders * MOST, max(least, readings // CONFIRM_SHARE))


def rivals(request: Request, spec: RotarySpec, axes: tuple[Axis, ...]) -> dict[str, tuple[float, ...]]:
    """What the joint result must beat: the uniform profile, and what would be had without a calibration.

    That is the rule of `dpe`, where the groups can express it; inside the trained window it is the stock model.
    """
    found = {UNIFORM: base_setting(axes)}
    if request.target_length == spec.pretrained_length:
        found[STOCK] = tuple(1.0 if axis.pairs else axis.base for axis in axes)
    elif (rule := plain_rule(axes, spec, request.target_length)) is not None:
        found[RULE] = rule
    return found


def groupings(request: Request, spec: RotarySpec) -> list[Groups]:
    """What the pairs may be grouped into, the finest first."""
    asked = request.groups
    if asked == "auto" and request.protocol == "paper":
        asked = str(paper.GROUPS)
    if asked == "auto":
        return [groups_by_wavelength(spec, borders) for borders in BORDERS]
    if asked.isdecimal():
        return [groups_by_count(spec, int(asked))]
    return [groups_by_wavelength(spec, [_fraction(part) for part in asked.split(",")])]


def _fraction(text: str) -> float:
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise EvaluationError(
            f"{text!r} is no border of groups; give a number of groups (8), auto, or borders such as 1/4,1,4,16"
        ) from None


def make_axes(request: Request, spec: RotarySpec, groups: Groups) -> tuple[Axis, ...]:
    """The axes of a request for these groups."""
    target = request.target_length
    values = paper_values(target) if request.protocol == "paper" else default_values(spec, target)
    return scale_axes(spec, target, groups, values) + extra_axes(spec, target, request.search)


def make_trials(
    request: Request, spec: RotarySpec, executor: Executor, axes: tuple[Axis, ...], fixed: dict[str, object]
) -> Trials:
    """Trials of these axes; `fixed`: fields of `dpe` that no axis sets."""
    published = request.protocol == "paper"
    return Trials(
        executor,
        axes,
        spec,
        task=paper.TASK if published and request.task == "needle" else request.task,
        target_length=request.target_length,
        seed=request.seed,
        fixed=fixed,
        hits=published,
    )


def fixed_fields(request: Request, spec: RotarySpec, keys: object) -> dict[str, object]:
    """Fields of `dpe` that no axis sets: the window where it is not searched, and the profile with key dimensions."""
    return {"window": local_window(spec, request.target_length)[0], "profile": keys}
