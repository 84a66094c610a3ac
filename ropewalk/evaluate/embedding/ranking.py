"""How high a search ranks what it should find."""

import math
from collections.abc import Sequence

import numpy as np

# Of the score itself, and at least of 1: scores closer than this tell nothing apart, for the same text read in two
# batches differs by as much.
TIE = 1e-6


def ranks(scores: np.ndarray, golds: Sequence[int]) -> list[int]:
    """The rank of each query's document, 1 for the best.

    A tie counts against it: of documents that look alike (as they do to a model that cuts off what differs) none was
    found.

    Args:
        scores: [queries, documents], higher for better.
        golds: index of the right document of each query.
    """
    own = scores[np.arange(len(golds)), list(golds)]
    return [int(rank) for rank in (scores >= (own - TIE * np.maximum(1, np.abs(own)))[:, None]).sum(axis=1)]


def accuracy_at_1(rank: int) -> float:
    """1 where the right document is the first."""
    return float(rank == 1)


def ndcg_at_10(rank: int) -> float:
    """Normalised discounted cumulative gain of one right document: 1 / log2(1 + rank), 0 below the tenth place."""
    return 1 / math.log2(1 + rank) if rank <= 10 else 0.0
