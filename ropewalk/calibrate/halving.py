"""Successive halving over the whole grid: one axis at a time is varied, and all candidates read the same documents."""

from collections.abc import Callable, Sequence

from ropewalk.calibrate.axis import Axis, Setting, base_setting, varied
from ropewalk.calibrate.rule import Curve, Paired, Rule, Samples, Scores, best_of, choose, curve, mean, paired

# An error that was itself taken from two or three documents says too little to end an axis early.
SETTLING_DOCUMENTS = 4

# Measures every pair of setting and document, and returns all that is known so far. What was measured before a run was
# killed is there at once, so that the same search comes to the same decisions.
Measure = Callable[[Sequence[tuple[Setting, int]]], Scores]


def grid(axes: Sequence[Axis]) -> list[Setting]:
    """Every axis at every value, the others at their base; the base itself, which all axes share, first and once."""
    return list(
        dict.fromkeys(
            [base_setting(axes)]
            + [varied(axes, index, value) for index, axis in enumerate(axes) for value in axis.values]
        )
    )


def smallest(axes: Sequence[Axis], rule: Rule) -> int:
    """Readings that a search needs, at most, until every axis can be decided."""
    kept = 1 + sum(_half(len(set(axis.values) - {axis.base})) for axis in axes)
    return len(grid(axes)) + (rule.documents - 1) * kept


def search(axes: Sequence[Axis], measure: Measure, *, readings: int, rule: Rule) -> list[Curve]:
    """Decide every axis.

    Round by round the documents double: 1, 2, 4, ... After each, half of an axis's candidates are stopped. The base is
    always kept, and is read once for all axes; of the others the one that the rule would choose now is kept first, then
    the best, then by their means. An axis is settled, and read no more, when it has SETTLING_DOCUMENTS and every
    remaining difference is known to within the margin (two standard errors of it). The search ends when all are settled
    or the readings are used up; whole documents only, so that all remaining candidates stay paired.

    Args:
        measure: see `Measure`.
        readings: documents that may be read in all, at least one for every setting of the grid.

    Returns:
        One curve for each axis.
    """
    base = base_setting(axes)
    alive: list[list[float]] = [list(dict.fromkeys([axis.base, *axis.values])) for axis in axes]
    open_axes = set(range(len(axes)))
    # Documents that each candidate was asked about; a measure may know of more, which must not change a decision.
    seen = [dict.fromkeys(values, 0) for values in alive]
    scores: Scores = {}
    done, goal, left = 0, 1, readings
    while open_axes:
        settings = list(
            dict.fromkeys([base, *(varied(axes, index, v) for index in sorted(open_axes) for v in alive[index])])
        )
        more = min(goal - done, left // len(settings))
        if more < 1:
            break
        scores = measure([(setting, done + at) for at in range(more) for setting in settings])
        done += more
        left -= more * len(settings)
        for index in sorted(open_axes):
            seen[index] |= dict.fromkeys(alive[index], done)
            samples = _asked(axes, index, scores, dict.fromkeys(alive[index], done))
            alive[index] = _survivors(axes[index], alive[index], samples, rule)
            if _settled(alive[index], samples, rule):
                open_axes.discard(index)
        goal = 2 * done
    return [
        curve(axis, alive[index], _asked(axes, index, scores, seen[index]), rule) for index, axis in enumerate(axes)
    ]


def _asked(axes: Sequence[Axis], index: int, scores: Scores, counts: dict[float, int]) -> dict[float, Samples]:
    """The samples of an axis's values, each of its first so many documents."""
    return {
        value: {document: scores[varied(axes, index, value)][document] for document in range(count)}
        for value, count in counts.items()
    }


def _half(others: int) -> int:
    return max(1, others // 2) if others else 0


def _survivors(axis: Axis, alive: list[float], samples: dict[float, Samples], rule: Rule) -> list[float]:
    others = [value for value in alive if value != axis.base]
    ranked = sorted(others, key=lambda value: -mean(samples[value]))
    first = [choose(axis, alive, samples, rule), best_of(alive, samples)]
    order = [value for value in dict.fromkeys([*first, *ranked]) if value != axis.base]
    return [axis.base, *order[: _half(len(others))]]


def _settled(alive: list[float], samples: dict[float, Samples], rule: Rule) -> bool:
    best = best_of(alive, samples)
    if len(alive) == 1:
        return True
    if len(samples[best]) < max(rule.documents, SETTLING_DOCUMENTS):
        return False
    others: list[Paired] = [paired(samples[value], samples[best]) for value in alive if value != best]
    return all(
        rule.standard_errors * each.error <= rule.margin or each.mean - rule.standard_errors * each.error > rule.margin
        for each in others
    )
