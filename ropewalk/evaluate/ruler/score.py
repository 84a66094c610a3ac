"""The macro score of a suite, and how far a model's effective context reaches, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.suite import RULER, SYNTHETIC
from ropewalk.evaluate.statistics import RESAMPLES

# Llama-2-7B-chat at 4k over all thirteen tasks: RULER's threshold (arXiv 2404.06654, table 3).
THRESHOLD = 85.6
# Partial suites have no such anchor, and small models never reach it: this share of the model's own score at its
# shortest length.
OWN_SHARE = 0.85

# Task -> score of every document, 0 to 1: documents are what is resampled.
Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Macro:
    """The unweighted mean of the tasks' means, in percent, with its 95% interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectiveLength:
    """How far a context is of use.

    Attributes:
        length: the largest tested length whose macro score is above the threshold; None: there is none.
        low, high: 95% interval of `length`, tested lengths too.
        threshold: in percent.
        rule: "85.6 over all thirteen tasks" or "85% of the stock score at N tokens".
        macros: at every length.
    """

    length: int | None
    low: int | None
    high: int | None
    threshold: float
    rule: str
    macros: dict[int, Macro]


def macro(scores: Scores, *, seed: int = 0) -> Macro:
    """The macro score of one length; its interval is a bootstrap over the samples of each task.

    It says how other prompts of the same tasks would score, not other tasks.

    Raises:
        EvaluationError: no task, a task without samples, or synthetic question answering among RULER's tasks.
    """
    return _interval(_mean(scores), _resampled(scores, np.random.default_rng(seed)))


def effective_length(
    scores: Mapping[int, Scores], *, own: tuple[int, Scores] | None = None, seed: int = 0
) -> EffectiveLength:
    """The effective length of a model by its scores at the tested lengths.

    With all thirteen tasks at every length the threshold is RULER's 85.6. For a part of them, and for small models,
    which are below that at their shortest length already, it is 85% of the stock model's own score there, which is the
    same for every method: one that spoils short texts gets no lower bar.
    As in RULER, a shorter length below the threshold does not count against a longer one above it. The interval is
    a bootstrap of the whole rule: lengths and threshold are drawn anew together.

    Args:
        scores: tested length in tokens -> task -> score of every document.
        own: shortest length of the stock model, and its scores there in the same tasks; None: these are its scores.

    Raises:
        EvaluationError: no lengths, lengths with different tasks, or as for `macro`.
    """
    lengths = sorted(scores)
    others = [scores[length] for length in lengths] + ([own[1]] if own else [])
    if not lengths or any(set(other) != set(scores[lengths[0]]) for other in others):
        raise EvaluationError(
            "an effective length needs the same tasks at every length; evaluate those that are missing"
        )
    rng = np.random.default_rng(seed)
    means = np.array([_mean(scores[length]) for length in lengths])  # [lengths]
    drawn = np.stack([_resampled(scores[length], rng) for length in lengths])  # [lengths, RESAMPLES]
    base = own[0] if own else lengths[0]
    base_mean, base_drawn = (_mean(own[1]), _resampled(own[1], rng)) if own else (float(means[0]), drawn[0])
    whole = set(scores[lengths[0]]) == set(RULER) and base_mean > THRESHOLD
    threshold = THRESHOLD if whole else OWN_SHARE * base_mean
    thresholds = np.full(RESAMPLES, THRESHOLD) if whole else OWN_SHARE * base_drawn
    reached = np.sort([_last_above(drawn[:, i], thresholds[i]) for i in range(RESAMPLES)])
    tail = round(0.025 * RESAMPLES)

    def name(place: int) -> int | None:
        return lengths[place] if place >= 0 else None

    return EffectiveLength(
        length=name(_last_above(means, threshold)),
        low=name(int(reached[tail])),
        high=name(int(reached[-tail - 1])),
        threshold=threshold,
        rule=f"{THRESHOLD} over all thirteen tasks" if whole else f"85% of the stock score at {base} tokens",
        macros={length: _interval(means[i], drawn[i]) for i, length in enumerate(lengths)},
    )


def _mean(scores: Scores) -> float:
    if not scores or not all(scores.values()):
        raise EvaluationError("a macro score needs one task or more with one sample or more each")
    if set(scores) & set(SYNTHETIC) and set(scores) & set(RULER):
        raise EvaluationError(f"{', '.join(SYNTHETIC)} are not RULER's; keep them out of its macro score")
    return 100 * sum(sum(values) / len(values) for values in scores.values()) / len(scores)


def _resampled(scores: Scores, rng: np.random.Generator) -> NDArray[np.float64]:
    """Macro scores of RESAMPLES resamplings of the samples of each task."""
    total = np.zeros(RESAMPLES)
    for values in scores.values():
        picked = rng.integers(len(values), size=(RESAMPLES, len(values)))
        total += np.asarray(values, dtype=np.float64)[picked].mean(axis=1)
    return 100 * total / len(scores)


def _interval(score: float, drawn: NDArray[np.float64]) -> Macro:
    ordered = np.sort(drawn)
    tail = round(0.025 * RESAMPLES)
    return Macro(float(score), float(ordered[tail]), float(ordered[-tail - 1]))


def _last_above(macros: NDArray[np.float64], threshold: float) -> int:
    """Index of the last macro score above the threshold; -1: there is none."""
    above = np.flatnonzero(macros > threshold)
    return int(above[-1]) if len(above) else -1
