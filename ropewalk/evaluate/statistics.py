"""Confidence intervals of a mean: Wilson for fractions, bootstrap over whole documents."""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ropewalk.errors import EvaluationError

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A 95% interval and how it was made: "wilson", "bootstrap over documents" or "bootstrap over samples"."""

    low: float
    high: float
    made_by: str


def wilson(successes: float, n: int) -> Interval:
    """Wilson's 95% score interval of a fraction (Wilson 1927), within [0, 1].

    Raises:
        EvaluationError: n < 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise EvaluationError(f"{successes} successes in {n} trials make no fraction; give 0 <= successes <= n, n >= 1")
    p, zz = successes / n, Z95 * Z95
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = Z95 / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return Interval(max(0.0, centre - half), min(1.0, centre + half), "wilson")


def bootstrap(scores: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """95% percentile interval of the mean of `scores`, drawing whole clusters with replacement, RESAMPLES times.

    Args:
        scores: one per sample.
        clusters: for each sample the document that it comes from.
        seed: the same seed gives the same interval.
    """
    groups: dict[Hashable, tuple[float, int]] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        total, count = groups.get(cluster, (0.0, 0))
        groups[cluster] = (total + score, count + 1)
    sums = list(groups.values())
    rng = random.Random(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(sums, k=len(sums))
        means.append(sum(s for s, _ in drawn) / sum(c for _, c in drawn))
    means.sort()
    tail = round(0.025 * RESAMPLES)
    return Interval(means[tail], means[-tail - 1], "bootstrap over documents")


def interval(scores: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """The 95% interval of a mean that the samples allow.

    - Two documents or more that differ in their mean: bootstrap over documents.
    - Only zeros and ones, in one document or with the same mean in all: Wilson over samples. Resampling would give an
      interval of width zero there, which 10 hits of 10 do not deserve. Within one document it takes the samples as
      independent, so it says nothing about other documents.
    - One and the same share (0 to 1) for all samples, or for the only one: Wilson too, for the same reason. No scores
      in [0, 1] with that mean vary more than zeros and ones do.
    - Other scores of one document: bootstrap over its samples, with the same limit.

    Raises:
        EvaluationError: there are no scores.
    """
    if not scores:
        raise EvaluationError("no samples were scored, so there is no interval; ask for one document or more")
    totals: dict[Hashable, list[float]] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        totals.setdefault(cluster, []).append(score)
    alike = len({sum(group) / len(group) for group in totals.values()}) == 1
    constant = len(set(scores)) == 1 and 0 <= scores[0] <= 1
    if constant or (alike and set(scores) <= {0.0, 1.0}):
        return wilson(sum(scores), len(scores))
    if len(totals) > 1:
        return bootstrap(scores, clusters, seed=seed)
    single = bootstrap(scores, range(len(scores)), seed=seed)
    return Interval(single.low, single.high, "bootstrap over samples")
