"""Paired comparison: two methods on the same prompts, and how sure the difference is.

Pairs share the prompt, so its difficulty cancels (Miller, arXiv 2411.00640, section 4).
"""

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.statistics import Interval, resampled, wilson

# All 2^k sign patterns of k documents are counted up to here; beyond, as many are drawn.
EXACT_DOCUMENTS = 12
PATTERNS = 10_000


@dataclass(frozen=True)
class Difference:
    """Second minus first, over the same samples.

    Attributes:
        mean: of the differences, in the unit of the scores.
        interval: 95%, of the mean.
        p: two-sided probability of a difference as large where the two methods are alike.
        test: how p was made: "mcnemar exact", "sign flips of documents" or "sign flips of samples".
        n, documents: pairs of samples, and the documents that they come from.
    """

    mean: float
    interval: Interval
    p: float
    test: str
    n: int
    documents: int


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], *, seed: int = 0
) -> Difference:
    """Compare the scores of two methods on the same samples.

    - Interval: `resampled` over documents. Scores in [0, 1] whose documents all differ alike (or are one) would get a
      width of zero there, which ten hits of ten against ten of ten do not deserve: Newcombe's then, for shares of
      documents as if they were not correlated.
    - p: McNemar's where every document is one sample of zero or one, else that of flipping the sign of documents.
    - A single document says nothing about others: there its samples are resampled, and taken as independent.

    Args:
        first, second: one score per sample, in the same order.
        clusters: for each sample the document that it comes from.
        seed: the same seed gives the same numbers.

    Raises:
        EvaluationError: nothing to compare, or samples that do not pair up.
    """
    if not first or not len(first) == len(second) == len(clusters):
        raise EvaluationError(
            f"{len(first)} and {len(second)} scores in {len(clusters)} places make no pairs; give both methods the "
            f"same samples, one or more"
        )
    differences = [b - a for a, b in zip(first, second, strict=True)]
    groups: dict[Hashable, list[float]] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        groups.setdefault(cluster, []).append(difference)
    binary = {*first, *second} <= {0.0, 1.0}
    single = len(groups) == 1
    name, units = ("samples", range(len(first))) if single else ("documents", clusters)
    shares = all(0 <= score <= 1 for score in (*first, *second))
    alike = len({sum(group) / len(group) for group in groups.values()}) == 1
    if binary and alike:
        interval = newcombe(first, second)
    elif shares and alike:
        n = len(groups)
        interval = square_and_add(math.fsum(first) / len(first), math.fsum(second) / len(second), n, 0.0)
    else:
        bounds = (-1.0, 1.0) if shares else (-math.inf, math.inf)
        drawn = resampled(differences, units, name, bounds=bounds, seed=seed)
        interval = Interval(drawn.low, drawn.high, f"paired {drawn.made_by}")
    if binary and (single or len(groups) == len(first)):
        p, test = mcnemar(differences.count(1.0), differences.count(-1.0)), "mcnemar exact"
    else:
        sums = differences if single else [math.fsum(group) for group in groups.values()]
        p, test = sign_flips(sums, seed=seed), f"sign flips of {name}"
    return Difference(math.fsum(differences) / len(differences), interval, p, test, len(first), len(groups))


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p of McNemar's test: the binomial tail of the pairs that differ (McNemar 1947), doubled."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def sign_flips(sums: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p of the paired randomisation test (Fisher 1935): how often flipped signs give a sum as large.

    Args:
        sums: of the differences, one for each independent unit. All sign patterns are counted for EXACT_DOCUMENTS of
            them or fewer; else PATTERNS are drawn, and the observed one counts as one more, so p is never 0.
    """
    observed = abs(math.fsum(sums))
    # Sums of the same numbers in another order differ in the last bits: they are as large.
    bound = observed - 1e-9 * math.fsum(map(abs, sums))
    if len(sums) <= EXACT_DOCUMENTS:
        patterns = product((1, -1), repeat=len(sums))
        extreme = sum(abs(math.fsum(s * x for s, x in zip(signs, sums, strict=True))) >= bound for signs in patterns)
        return extreme / 2 ** len(sums)
    rng = random.Random(seed)
    extreme = sum(abs(sum(x if rng.random() < 0.5 else -x for x in sums)) >= bound for _ in range(PATTERNS))
    return (extreme + 1) / (PATTERNS + 1)


def newcombe(first: Sequence[float], second: Sequence[float]) -> Interval:
    """95% score interval of the difference of two paired fractions, second minus first (Newcombe 1998, method 10).

    Newcombe, Statistics in Medicine 17, 2635-2650: two Wilson intervals, joined by the correlation phi of the pairs.

    Args:
        first, second: zeros and ones, as long as each other, one or more.
    """
    n = len(first)
    pairs = list(zip(second, first, strict=True))
    both, neither = pairs.count((1.0, 1.0)), pairs.count((0.0, 0.0))
    gained, lost = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    cross = both * neither - gained * lost
    # His continuity correction is for a positive association only.
    corrected = cross - n / 2 if cross > n / 2 else min(cross, 0)
    return square_and_add((both + lost) / n, (both + gained) / n, n, corrected / math.sqrt(margins) if margins else 0.0)


def square_and_add(first: float, second: float, n: int, phi: float) -> Interval:
    """Newcombe's interval from the shares of n pairs, 0 to 1, and their correlation."""
    of_first, of_second = wilson(first * n, n), wilson(second * n, n)
    below = second - of_second.low, of_first.high - first
    above = of_second.high - second, first - of_first.low
    low, high = (math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)) for x, y in (below, above))
    return Interval(max(-1.0, second - first - low), min(1.0, second - first + high), "newcombe paired")


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given: each may be read against 0.05 as it stands."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted


def samples_needed(difference: float, sd: float, rho: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs of samples that find a true difference with this power (Miller, arXiv 2411.00640, section 5).

    n = (z_{1 - alpha/2} + z_power)^2 * 2 sd^2 (1 - rho) / difference^2, rounded up, for independent pairs.

    Args:
        difference: of the means to be found, in the unit of the scores.
        sd: standard deviation of one method's scores over samples; 0.5 at most for zeros and ones.
        rho: correlation of the two methods' scores on the same sample; 0 is also the number for two separate sets.
        power: probability to find it, and `alpha` to find what is not there, two-sided.

    Raises:
        EvaluationError: a number out of its range.
    """
    if not (difference != 0 and sd > 0 and -1 <= rho < 1 and 0 < power < 1 and 0 < alpha < 1):
        raise EvaluationError(
            f"no number of samples for difference {difference}, sd {sd}, rho {rho}, power {power}, alpha {alpha}; "
            f"give a difference other than 0, sd > 0, -1 <= rho < 1, power and alpha between 0 and 1"
        )
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return math.ceil(z * z * 2 * sd * sd * (1 - rho) / (difference * difference))
