"""How many documents a comparison needs, by what was measured already."""

from collections.abc import Sequence
from statistics import covariance, fmean, variance

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.paired import samples_needed


def documents_needed(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], difference: float, *, power: float = 0.8
) -> int:
    """Documents with which a true difference of two methods is found, two-sided at 5%.

    The spread and correlation of the methods' document means are those of the documents given, so that few of them make
    a rough number (Miller, arXiv 2411.00640, section 5, with a document as the unit).

    Args:
        first, second: the scores of each document, document by document, in the same order.
        difference: of the means, in the unit of the scores.
        power: probability to find it.

    Raises:
        EvaluationError: fewer than two documents, documents on which the methods do not differ in spread, or a
            difference or power out of range.
    """
    ours, theirs = ([fmean(scores) for scores in side] for side in (first, second))
    if len(ours) < 2:
        raise EvaluationError(f"{len(ours)} documents do not tell how much documents differ; measure two or more first")
    spread = (variance(ours) + variance(theirs)) / 2
    if spread == 0:
        raise EvaluationError("every document has the same score, so nothing tells how much they differ; measure more")
    rho = covariance(ours, theirs) / spread
    if rho >= 1:
        raise EvaluationError("the methods differ by the same amount on every document; more documents tell no more")
    return samples_needed(difference, spread**0.5, rho, power=power)
