"""Macro scores and effective lengths of a report: RULER's tasks together, every other task by itself."""

from dataclasses import dataclass
from statistics import fmean

from ropewalk.evaluate.report.data import Panel, Series, Study, ordered
from ropewalk.evaluate.ruler.score import EffectiveLength, Scores, effective_length
from ropewalk.evaluate.ruler.suite import QUESTIONS, RULER, SYNTHETIC
from ropewalk.lengths import format_length


@dataclass(frozen=True)
class Suite:
    """Tasks that share a macro score: shares of 1, under one protocol, template and text."""

    name: str
    panels: list[Panel]

    @property
    def lengths(self) -> list[int]:
        """Tested lengths of any task, ascending."""
        return sorted({length for panel in self.panels for length in panel.lengths})


@dataclass(frozen=True)
class Reach:
    """The effective length of a series in a suite.

    Attributes:
        tasks: those that the series has at every length that it was tested at; others do not count.
        effective: None where no task is left.
        largest: the largest length tested, tokens.
    """

    series: Series
    tasks: list[str]
    effective: EffectiveLength | None
    largest: int


def suites(study: Study) -> list[Suite]:
    """The suites of a study; metrics that are no share of 1 have none."""
    groups: dict[tuple[str, ...], list[Panel]] = {}
    for panel in study.panels:
        if panel.is_score:
            family = _family(panel.task)
            shared = (panel.protocol, panel.template, "" if panel.task in QUESTIONS else panel.corpus_sha256)
            groups.setdefault((family, *shared) if family else (panel.name,), []).append(panel)
    _join_questions(groups)
    names = [key[0] for key in groups]
    return [
        Suite(f"{key[0]} ({key[1]}, {key[2] or 'no template'})" if names.count(key[0]) > 1 else key[0], panels)
        for key, panels in groups.items()
    ]


def name_reach(tokens: int | None, largest: int) -> str:
    """An effective length in words: at least the largest that was tested, if it is that."""
    if tokens is None:
        return "none"
    return f"≥ {format_length(tokens)}" if tokens == largest else format_length(tokens)


def _join_questions(groups: dict[tuple[str, ...], list[Panel]]) -> None:
    """Put tasks that have a file of the user's for a text to the other tasks of their suite, whatever text those have.

    Two files for one task stay by themselves: which of them is the suite's is not known.
    """
    for key in [key for key in groups if len(key) > 1 and not key[-1]]:
        panels = groups.pop(key)
        if len({panel.task for panel in panels}) < len(panels):
            for panel in panels:
                groups[*key[:-1], panel.corpus_sha256] = [panel]
            continue
        for other in [other for other in groups if other[:-1] == key[:-1]] or [key]:
            groups.setdefault(other, []).extend(panels)


def reaches(suite: Suite) -> list[Reach]:
    """The effective length of every series in a suite, by `ropewalk.evaluate.ruler.score.effective_length`."""
    return [_reach(suite, series) for series in ordered(series for panel in suite.panels for series in panel.series)]


def _reach(suite: Suite, series: Series) -> Reach:
    lengths = _lengths(suite, series)
    whole = [panel for panel in suite.panels if all((series, length) in panel.cells for length in lengths)]
    scores = {length: _scores(whole, series, length) for length in lengths}
    effective = effective_length(scores, own=_own(suite, whole, series)) if whole else None
    return Reach(series, [panel.task for panel in whole], effective, lengths[-1])


def _own(suite: Suite, panels: list[Panel], series: Series) -> tuple[int, Scores] | None:
    """The stock model's shortest length and its scores there; None for itself, and where it lacks one of the tasks."""
    stock = next((one for panel in suite.panels for one in panel.series if one.kind == "stock"), None)
    if stock is None or stock == series:
        return None
    shortest = _lengths(suite, stock)[0]
    if any((stock, shortest) not in panel.cells for panel in panels):
        return None
    return shortest, _scores(panels, stock, shortest)


def _lengths(suite: Suite, series: Series) -> list[int]:
    return sorted({length for panel in suite.panels for one, length in panel.cells if one == series})


def _scores(panels: list[Panel], series: Series, length: int) -> dict[str, list[float]]:
    """The mean score of every document, by task."""
    return {panel.task: [fmean(row.scores) for row in panel.cells[series, length].rows] for panel in panels}


def _family(task: str) -> str:
    if task in RULER:
        return "RULER"
    return "own question answering" if task in SYNTHETIC else ""
