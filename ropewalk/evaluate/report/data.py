"""From stored rows to what a report shows: studies of one model, their series (methods and controls) and cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.evaluate.metric import lower_is_better
from ropewalk.evaluate.row import Row
from ropewalk.evaluate.statistics import Interval, interval
from ropewalk.lengths import format_length

Kind = Literal["stock", "method", "control"]
# (resolved, hash of the plan, backend)
Setting = tuple[str, str, str]

STOCK = "none"
KINDS: tuple[Kind, ...] = ("stock", "method", "control")


@dataclass(frozen=True)
class Series:
    """A method or a control, as one line of a figure.

    Attributes:
        name: as shown; "stock" for the model as it is.
        kind: what it is.
        place: index among the series of its kind in the whole report: the same colour in every figure.
    """

    name: str
    kind: Kind
    place: int

    @property
    def ident(self) -> str:
        """A name that may stand in an HTML class: `name` is any text."""
        return f"{self.kind}-{self.place}"


@dataclass(frozen=True)
class Cell:
    """One series on one task at one length: the mean of its scores with a 95% interval."""

    series: Series
    length: int
    mean: float
    interval: Interval
    rows: tuple[Row, ...]

    @property
    def n(self) -> int:
        """How many scores the mean is of."""
        return sum(len(row.scores) for row in self.rows)


@dataclass(frozen=True)
class Panel:
    """A task under one protocol, template and text: what may stand in one figure.

    Attributes:
        name: the task's, with whatever tells it from another panel of the same task.
        cells: by (series, length); lengths ascend.
    """

    name: str
    task: str
    protocol: str
    template: str
    corpus_sha256: str
    metric: str
    cells: dict[tuple[Series, int], Cell]

    @property
    def lengths(self) -> list[int]:
        """Tested lengths, ascending."""
        return sorted({length for _, length in self.cells})

    @property
    def series(self) -> list[Series]:
        """What was measured, stock first."""
        return ordered(series for series, _ in self.cells)

    @property
    def is_score(self) -> bool:
        """Whether the metric is a share of 1 that a better model raises."""
        scores = (score for cell in self.cells.values() for row in cell.rows for score in row.scores)
        return not lower_is_better(self.metric) and all(0 <= score <= 1 for score in scores)


@dataclass(frozen=True)
class Study:
    """All that was measured on one model with one tokenizer in one number type.

    Attributes:
        title: model and number type.
        panels: in order of appearance.
        rows: with the series of each.
    """

    title: str
    panels: list[Panel]
    rows: list[tuple[Series, Row]]

    @property
    def series(self) -> list[Series]:
        """Of all panels, stock first."""
        return ordered(series for series, _ in self.rows)


def ordered(series: Any) -> list[Series]:
    """Each once: stock, methods, controls, every kind in the order in which the report met them."""
    return sorted(set(series), key=lambda one: (KINDS.index(one.kind), one.place))


def studies(rows: Sequence[Row]) -> list[Study]:
    """The rows by model, tokenizer and number type; a series has the same place in all of them."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.key.model_sha256, row.key.tokenizer_sha256, row.key.dtype)
        groups.setdefault(key, []).append(row)
    titles = [f"{group[0].model}, {key[-1]}" for key, group in groups.items()]
    known: dict[tuple[Kind, str], Series] = {}
    made = []
    for title, (key, group) in zip(titles, groups.items(), strict=True):
        named = _series(group, known)
        # The same name for two files: their fingerprints tell them apart.
        full = f"{title} ({key[0][:8]}, tokenizer {key[1][:8]})" if titles.count(title) > 1 else title
        made.append(Study(full, _panels(named), named))
    return made


def _series(rows: list[Row], known: dict[tuple[Kind, str], Series]) -> list[tuple[Series, Row]]:
    """The series of every row; one name that stands for several settings in a cell is split by setting."""
    families: dict[tuple[Kind, str], list[Row]] = {}
    for row in rows:
        families.setdefault(_label(row), []).append(row)
    names = {label: _names(label[1], family) for label, family in families.items()}
    named = []
    for row in rows:
        kind, name = _label(row)[0], names[_label(row)][_setting(row)]
        if (kind, name) not in known:
            known[kind, name] = Series(name, kind, sum(one.kind == kind for one in known.values()))
        named.append((known[kind, name], row))
    return named


def _names(name: str, rows: list[Row]) -> dict[Setting, str]:
    """What to call each setting of one name: by its target length where that is enough, else as resolved."""
    cells: dict[tuple[Any, ...], set[Setting]] = {}
    targets: dict[int, set[Setting]] = {}
    for row in rows:
        cells.setdefault((*_panel(row), row.key.length), set()).add(_setting(row))
        targets.setdefault(row.target_length, set()).add(_setting(row))
    settings = {_setting(row): row.target_length for row in rows}
    if all(len(found) == 1 for found in cells.values()):
        return dict.fromkeys(settings, name)
    if all(len(found) == 1 for found in targets.values()):
        return {setting: f"{name} for {format_length(target)}" for setting, target in settings.items()}
    if len({resolved for resolved, _, _ in settings}) == len(settings):
        return {setting: setting[0] for setting in settings}
    return {setting: f"{setting[0]} (plan {setting[1][:8]}, {setting[2]})" for setting in settings}


def _label(row: Row) -> tuple[Kind, str]:
    if row.key.control:
        return "control", row.key.control if row.method == STOCK else f"{row.key.control} on {row.method}"
    return ("stock", "stock") if row.method == STOCK else ("method", row.method)


def _setting(row: Row) -> Setting:
    return row.key.resolved, row.key.plan_sha256, row.key.backend


def _panel(row: Row) -> tuple[str, str, str, str, str]:
    return row.key.task, row.key.protocol, row.key.template, row.key.corpus_sha256, row.metric


def _panels(rows: list[tuple[Series, Row]]) -> list[Panel]:
    groups: dict[tuple[str, str, str, str, str], dict[tuple[Series, int], list[Row]]] = {}
    corpora: dict[str, str] = {}
    for series, row in rows:
        groups.setdefault(_panel(row), {}).setdefault((series, row.key.length), []).append(row)
        corpora.setdefault(row.key.corpus_sha256, row.corpus)
    made = []
    for key, cells in groups.items():
        named = [corpora.get(part, part) for part in key]
        rivals = [other for other in groups if other[0] == key[0] and other != key]
        apart = [named[i] for i in range(1, len(key)) if any(other[i] != key[i] for other in rivals)]
        name = f"{key[0]} ({', '.join(part or 'no template' for part in apart)})" if apart else key[0]
        made.append(Panel(name, *key, {place: _cell(*place, found) for place, found in sorted(cells.items(), key=_by)}))
    return made


def _by(item: tuple[tuple[Series, int], list[Row]]) -> tuple[int, int, int]:
    series, length = item[0]
    return KINDS.index(series.kind), series.place, length


def _cell(series: Series, length: int, rows: list[Row]) -> Cell:
    scores = [score for row in rows for score in row.scores]
    owners = [(row.key.seed, row.key.document) for row in rows for _ in row.scores]
    return Cell(series, length, sum(scores) / len(scores), interval(scores, owners), tuple(rows))
