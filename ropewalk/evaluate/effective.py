"""How far every method reaches, by the samples of a sweep: the report's table of effective lengths, as data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.report.suites import reaches, suites
from ropewalk.evaluate.row import Row
from ropewalk.evaluate.ruler.score import EffectiveLength


@dataclass(frozen=True)
class Reached:
    """The effective length of a method or control over a suite, or over a task that stands alone.

    Attributes:
        suite: its name; `method`: as tables and figures call it, "stock" for the stock model.
        tasks: that count: those that the method has at every length that it was tested at.
        found: the length with its interval, the threshold, and the macro score of every length.
        largest: length tested, tokens; an effective length of so many is a lower bound.
    """

    suite: str
    method: str
    tasks: tuple[str, ...]
    found: EffectiveLength
    largest: int

    def to_json(self) -> dict[str, Any]:
        """The fields by name, those of `found` among them; tuples become lists once dumped."""
        own = {name: value for name, value in asdict(self).items() if name != "found"}
        return own | asdict(self.found)


def effective_lengths(rows: Sequence[Row]) -> list[Reached]:
    """By suite, then stock, methods and controls; where two lengths or more were tested, for one has no reach.

    Args:
        rows: of one model in one number type; of several, each model's by itself, under its suite's name.
    """
    return [
        Reached(suite.name, reach.series.name, tuple(reach.tasks), reach.effective, reach.largest)
        for study in studies(rows)
        for suite in suites(study)
        for reach in reaches(suite)
        if reach.effective and len(reach.effective.macros) > 1
    ]
