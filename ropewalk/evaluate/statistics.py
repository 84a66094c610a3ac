"""Confidence intervals of a mean: Wilson for fractions, else bootstrap or Student's t over whole documents."""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.special import stdtrit

from ropewalk.errors import EvaluationError

Z95 = 1.959963984540054
RESAMPLES = 2000
FEW = 6  # the clusters' own range holds their median in 1 - 2^(1 - n) of samples: above 95% from six on


@dataclass(frozen=True)
class Interval:
    """A 95% interval and how it was made, in words."""

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


def resampled(
    scores: Sequence[float],
    clusters: Sequence[Hashable],
    units: str = "documents",
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    seed: int = 0,
) -> Interval:
    """95% interval of the mean of `scores` from clusters that were drawn independently: expanded bootstrap, or t.

    RESAMPLES times as many clusters are drawn with replacement. Plain percentiles are too narrow for few clusters, so
    the tails are those whose normal quantile is sqrt(n / (n - 1)) times that of t with n - 1 degrees of freedom
    (Hesterberg, The American Statistician 69 (2015), 371-386: the expanded percentile interval). No resampled mean
    lies outside the clusters' own, a range that is itself too narrow for fewer than FEW clusters: Student's t then, on
    the residuals of the clusters, cut to `bounds`.

    Args:
        scores: one per sample.
        clusters: for each sample the document that it comes from. Of a single one: the mean twice, named so.
        units: what the clusters are, for the interval's name.
        bounds: the smallest and the largest value that a mean can have.
        seed: the same seed gives the same interval.
    """
    groups: dict[Hashable, tuple[float, int]] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        total, count = groups.get(cluster, (0.0, 0))
        groups[cluster] = (total + score, count + 1)
    sums, n = list(groups.values()), len(groups)
    if n == 1:
        mean = math.fsum(scores) / len(scores)
        return Interval(mean, mean, f"none: one of the {units}")
    t = float(stdtrit(n - 1, 0.975))
    if n < FEW:
        mean = math.fsum(scores) / len(scores)
        residuals = [(total - mean * count) * n / len(scores) for total, count in sums]
        half = t * math.sqrt(math.fsum(r * r for r in residuals) / (n * (n - 1)))
        return Interval(max(bounds[0], mean - half), min(bounds[1], mean + half), f"t over {units}")
    rng = random.Random(seed)
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(sums, k=n)
        means.append(sum(s for s, _ in drawn) / sum(c for _, c in drawn))
    means.sort()
    tail = round(NormalDist().cdf(-t * math.sqrt(n / (n - 1))) * RESAMPLES)
    return Interval(means[tail], means[-tail - 1], f"bootstrap over {units}")


def interval(scores: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0) -> Interval:
    """The 95% interval of a mean that the samples allow.

    - Two documents or more that differ in their mean: `resampled` over documents.
    - Only zeros and ones, in one document or with the same mean in all: Wilson over samples. Resampling would give an
      interval of width zero there, which 10 hits of 10 do not deserve. Within one document it takes the samples as
      independent, so it says nothing about other documents.
    - One and the same share (0 to 1) for all samples, or for the only one: Wilson too, for the same reason. No scores
      in [0, 1] with that mean vary more than zeros and ones do.
    - Other scores of one document: `resampled` over its samples, with the same limit.

    Scores that all lie in [0, 1] are taken for shares: their interval stays in it.

    Raises:
        EvaluationError: there are no scores.
    """
    if not scores:
        raise EvaluationError("no samples were scored, so there is no interval; ask for one document or more")
    totals: dict[Hashable, list[float]] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        totals.setdefault(cluster, []).append(score)
    alike = len({sum(group) / len(group) for group in totals.values()}) == 1
    shares = all(0 <= score <= 1 for score in scores)
    if shares and (len(set(scores)) == 1 or (alike and set(scores) <= {0.0, 1.0})):
        return wilson(sum(scores), len(scores))
    bounds = (0.0, 1.0) if shares else (-math.inf, math.inf)
    if len(totals) > 1:
        return resampled(scores, clusters, bounds=bounds, seed=seed)
    return resampled(scores, range(len(scores)), "samples", bounds=bounds, seed=seed)
