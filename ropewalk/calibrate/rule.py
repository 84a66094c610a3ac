"""How candidates are told apart: on the same documents, in pairs, with the number of documents said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from ropewalk.calibrate.axis import Axis, Setting

# document -> the answers' log-probabilities (or whatever is measured), one per fact.
Samples = Mapping[int, Sequence[float]]
Scores = Mapping[Setting, Samples]


@dataclass(frozen=True)
class Rule:
    """When a candidate is as good as the best one, and what a decision needs.

    Attributes:
        standard_errors, margin: a candidate is as good as the best when it is worse by at most so many standard errors
            of the paired difference, and by at most `margin` nats of the answers' mean log-probability (0.1 nats are a
            tenth of their probability). Of those, the smallest scale is taken, not the best: on a flat curve the best
            is noise (measured: docs/calibration.md).
        documents: that a decision needs; with fewer the base is kept.
        confirm_documents: fresh ones that a confirmation needs.
        loss_margin: nats per token by which the loss of the last 1,024 tokens may grow in a confirmation.
    """

    standard_errors: float = 2.0
    margin: float = 0.1
    documents: int = 2
    confirm_documents: int = 3
    loss_margin: float = 0.05

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Second minus first over the documents that both have.

    Attributes:
        mean: of the documents' mean differences.
        error: its standard error, over documents; of a single document over its facts, which says nothing about other
            documents. Infinite where there is one number.
        documents: how many.
    """

    mean: float
    error: float
    documents: int


@dataclass(frozen=True)
class Point:
    """One candidate of a curve.

    Attributes:
        value: of the axis.
        documents: that it was measured on; candidates that were stopped early have fewer.
        mean: over these documents.
        below_best: how much worse than the best candidate, paired, with its standard error.
        outcome: "chosen", "as good" (as the best, within the rule), "worse", or "stopped".
    """

    value: float
    documents: int
    mean: float
    below_best: float
    error: float
    outcome: str


@dataclass(frozen=True)
class Curve:
    """What was found on one axis.

    Attributes:
        chosen: the value taken.
        decided: false where there were too few documents, so that the base was kept.
        points: every candidate, in order of its value.
    """

    axis: Axis
    chosen: float
    decided: bool
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name; an error that is not known is None, for JSON has no infinity."""
        points = [asdict(point) | {"error": _finite(point.error)} for point in self.points]
        return asdict(self) | {"points": points}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def paired(first: Samples, second: Samples) -> Paired:
    """Compare two settings on the documents that both have; one or more."""
    shared = sorted(first.keys() & second.keys())
    assert shared, "settings are compared on common documents"
    facts = [[b - a for a, b in zip(first[one], second[one], strict=True)] for one in shared]
    units = [fmean(each) for each in facts] if len(shared) > 1 else facts[0]
    error = stdev(units) / math.sqrt(len(units)) if len(units) > 1 else math.inf
    return Paired(fmean(map(fmean, facts)), error, len(shared))


def mean(samples: Samples) -> float:
    """Mean over documents of their mean over facts."""
    return fmean(fmean(facts) for facts in samples.values())


def best_of(values: Sequence[float], samples: Mapping[float, Samples]) -> float:
    """The value with the largest mean; the first of equals. All have the same documents."""
    return max(values, key=lambda value: mean(samples[value]))


def as_good(rule: Rule, best: Samples, other: Samples) -> bool:
    """Whether `other` is as good as `best` by the rule."""
    difference = paired(other, best)
    return difference.mean <= rule.margin and difference.mean <= rule.standard_errors * difference.error


def choose(axis: Axis, values: Sequence[float], samples: Mapping[float, Samples], rule: Rule) -> float:
    """The first in the axis's order of preference that is as good as the best of `values`."""
    ordered = [value for value in axis.values if value in values] + [v for v in values if v not in axis.values]
    best = best_of(ordered, samples)
    return next(value for value in ordered if value == best or as_good(rule, samples[best], samples[value]))


def curve(axis: Axis, alive: Sequence[float], samples: Mapping[float, Samples], rule: Rule) -> Curve:
    """Decide an axis.

    Args:
        alive: candidates that were not stopped; they share the same documents, and the base is among them.
        samples: of every candidate.
    """
    best = best_of(alive, samples)
    decided = len(samples[best]) >= rule.documents
    chosen = choose(axis, alive, samples, rule) if decided else axis.base
    points = []
    for value in sorted(samples):
        difference = paired(samples[value], samples[best])
        if value == chosen:
            outcome = "chosen"
        elif value not in alive:
            outcome = "stopped"
        else:
            outcome = "as good" if as_good(rule, samples[best], samples[value]) else "worse"
        count, at = len(samples[value]), mean(samples[value])
        points.append(Point(value, count, at, difference.mean, difference.error, outcome))
    return Curve(axis, chosen, decided, tuple(points))
