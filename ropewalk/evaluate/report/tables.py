"""The tables of a page, as text that its template sets."""

from dataclasses import dataclass, replace

from ropewalk.evaluate.metric import lower_is_better
from ropewalk.evaluate.report.data import Cell, Panel, Series
from ropewalk.evaluate.report.findings import Findings
from ropewalk.evaluate.report.suites import Reach, Suite, name_reach
from ropewalk.lengths import format_length

SURE = 0.05


@dataclass(frozen=True)
class Number:
    """A value as a table shows it.

    Attributes:
        value, interval: with its 95% interval.
        note: how many scores it is of, or what else is to be said.
        sign: "+" where it is surely better than stock, "-" where surely worse.
    """

    value: str
    interval: str
    note: str
    sign: str = ""


# A series with one number for each column; None where nothing was measured.
Line = tuple[Series, list[Number | None]]


@dataclass(frozen=True)
class Table:
    """A line for every series.

    Attributes:
        title, unit: above it.
        columns: (heading, note that holds for the whole column).
        lines: stock first.
    """

    title: str
    unit: str
    columns: list[tuple[str, str]]
    lines: list[Line]


def effective_table(found: Findings) -> Table | None:
    """The effective length of every series by suite; None without a suite."""
    if not found.suites:
        return None
    rules = [dict.fromkeys(reach.effective.rule for reach in reaches if reach.effective) for _, reaches in found.suites]
    columns = [(suite.name, "; ".join(rule)) for (suite, _), rule in zip(found.suites, rules, strict=True)]
    by_suite = [{reach.series: _effective(suite, reach) for reach in reaches} for suite, reaches in found.suites]
    lines: list[Line] = [
        (series, [reaches.get(series) for reaches in by_suite])
        for series in found.study.series
        if any(series in reaches for reaches in by_suite)
    ]
    return Table("Effective length", "tokens", columns, lines)


def score_tables(found: Findings) -> list[Table]:
    """Macro scores of the suites with several tasks, then the mean of every task, series and length."""
    signs = {}
    for one in found.against:
        difference, p = one.comparison.difference, one.comparison.holm_p
        if difference and p is not None and p < SURE:
            better = (difference.mean < 0) == lower_is_better(one.panel.metric)
            signs[one.panel.name, one.series, one.length] = "+" if better else "-"
    macros = [_macro_table(suite, reaches) for suite, reaches in found.suites if len(suite.panels) > 1]
    return macros + [_task_table(panel, signs) for panel in found.study.panels]


def difference_rows(found: Findings) -> list[tuple[str, str, Series, list[str]]]:
    """(task, length, series, numbers) of every paired difference."""
    rows = []
    for one in found.against:
        made, difference = one.comparison, one.comparison.difference
        if difference is None:
            continue
        numbers = [
            f"{made.first_mean:.3f}",
            f"{made.second_mean:.3f}",
            f"{difference.mean:+.3f}",
            f"[{difference.interval.low:+.3f}, {difference.interval.high:+.3f}]",
            _count(difference.n, difference.documents),
            f"{difference.p:.2g}",
            f"{made.holm_p:.2g}",
            f"{difference.test}; {difference.interval.made_by}",
        ]
        rows.append((one.panel.name, format_length(one.length), one.series, numbers))
    return rows


def _effective(suite: Suite, reach: Reach) -> Number:
    effective = reach.effective
    tasks = "" if len(reach.tasks) == len(suite.panels) else f", {len(reach.tasks)} of {len(suite.panels)} tasks"
    if effective is None:
        return Number("–", "", "no task at every length")
    low, high = (name_reach(end, reach.largest) for end in (effective.low, effective.high))
    value = name_reach(effective.length, reach.largest)
    return Number(value, f"[{low}, {high}]", f"above {effective.threshold:.1f}%{tasks}")


def _macro_table(suite: Suite, reaches: list[Reach]) -> Table:
    lines: list[Line] = []
    for reach in reaches:
        macros = reach.effective.macros if reach.effective else {}
        numbers: list[Number | None] = []
        for length in suite.lengths:
            made = macros.get(length)
            cells = [panel.cells[reach.series, length] for panel in suite.panels if made and panel.task in reach.tasks]
            count = _count(sum(cell.n for cell in cells), sum(len(cell.rows) for cell in cells))
            note = count if len(cells) == len(suite.panels) else f"{len(cells)} tasks, {count}"
            numbers.append(Number(f"{made.score:.1f}", f"[{made.low:.1f}, {made.high:.1f}]", note) if made else None)
        lines.append((reach.series, numbers))
    return _table(f"{suite.name}, macro", f"%, mean of {len(suite.panels)} tasks", suite.lengths, lines)


def _task_table(panel: Panel, signs: dict[tuple[str, Series, int], str]) -> Table:
    lines: list[Line] = [
        (
            series,
            [
                _number(panel.cells[series, length], signs.get((panel.name, series, length), ""))
                if (series, length) in panel.cells
                else None
                for length in panel.lengths
            ],
        )
        for series in panel.series
    ]
    return _table(panel.name, panel.metric, panel.lengths, lines)


def _table(title: str, unit: str, lengths: list[int], lines: list[Line]) -> Table:
    """A table over lengths; a count that a whole column shares moves to its head."""
    shared = [{one.note for one in column if one} for column in zip(*(numbers for _, numbers in lines), strict=True)]
    notes = [next(iter(notes)) if len(notes) == 1 else "" for notes in shared]
    thin: list[Line] = [
        (
            series,
            [one and replace(one, note="" if note else one.note) for one, note in zip(numbers, notes, strict=True)],
        )
        for series, numbers in lines
    ]
    heads = [(format_length(length), note) for length, note in zip(lengths, notes, strict=True)]
    return Table(title, unit, heads, thin)


def _number(cell: Cell, sign: str) -> Number:
    interval = f"[{cell.interval.low:.2f}, {cell.interval.high:.2f}]"
    return Number(f"{cell.mean:.2f}", interval, _count(cell.n, len(cell.rows)), sign)


def _count(n: int, documents: int) -> str:
    return f"n={n}" if n == documents else f"n={n} ({documents} doc{'s' if documents > 1 else ''})"
