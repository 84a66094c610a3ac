"""The authors' own detection of effective lengths (arXiv 2504.18857; effective_length_detection/ of their code)."""

from collections.abc import Sequence

from ropewalk.calibrate.axis import Axis, varied
from ropewalk.calibrate.halving import Measure
from ropewalk.calibrate.rule import Curve, Paired, Point, mean, paired

TASK = "needle-four"
GROUPS = 8
DOCUMENTS = 100


def full_grid(axes: Sequence[Axis]) -> int:
    """Different settings that the protocol reads; a setting that several groups share is read once."""
    return len({varied(axes, index, value) for index, axis in enumerate(axes) for value in axis.values})


def detect(axes: Sequence[Axis], measure: Measure, *, documents: int) -> list[Curve]:
    """Read every candidate of every group on all documents, and take the one with the highest mean of each group.

    The published rule is "sorting the results"; equal means, which it leaves open, give the smallest scale. Nothing is
    confirmed: the authors do not.
    """
    wanted = [varied(axes, index, value) for index, axis in enumerate(axes) for value in axis.values]
    scores = measure([(setting, at) for at in range(documents) for setting in dict.fromkeys(wanted)])
    curves = []
    for index, axis in enumerate(axes):
        samples = {value: scores[varied(axes, index, value)] for value in axis.values}
        means = {value: mean(found) for value, found in samples.items()}
        best = max(sorted(means), key=lambda value: means[value])
        points = []
        for value in sorted(means):
            against: Paired = paired(samples[value], samples[best])
            outcome = "chosen" if value == best else "as good" if means[value] == means[best] else "worse"
            points.append(Point(value, documents, means[value], against.mean, against.error, outcome))
        curves.append(Curve(axis, best, True, tuple(points)))
    return curves
