"""RULER's two metrics, for one answer: case-insensitive substrings, after NVIDIA's post-processing."""

import re
from collections.abc import Callable, Sequence

from ropewalk.errors import EvaluationError

_CONTROL = re.compile(r"[\x00-\x1f]")

Metric = Callable[[str, Sequence[str]], float]


def clean(prediction: str) -> str:
    """NVIDIA's post-processing: strip, control characters to line breaks, strip."""
    return _CONTROL.sub("\n", prediction.strip()).strip()


def string_match_all(prediction: str, references: Sequence[str]) -> float:
    """The fraction of the references that stand in the answer, 0 to 1.

    Raises:
        EvaluationError: there are no references.
    """
    hits = _hits(prediction, references)
    return sum(hits) / len(hits)


def string_match_part(prediction: str, references: Sequence[str]) -> float:
    """1 if any reference stands in the answer, else 0: the maximum over the references, as NVIDIA scores it.

    lm-evaluation-harness 0.4.13 gives the fraction of them under this name: 1 of 3 is 0.333 there and 1 here.

    Raises:
        EvaluationError: there are no references.
    """
    return float(any(_hits(prediction, references)))


def _hits(prediction: str, references: Sequence[str]) -> list[bool]:
    if not references:
        raise EvaluationError("an answer without references cannot be scored; give one reference or more")
    said = clean(prediction).lower()
    return [reference.lower() in said for reference in references]
