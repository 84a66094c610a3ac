"""The page of a report: one HTML file with its figures, its style and its script in it."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ropewalk.evaluate.report.data import Series, ordered
from ropewalk.evaluate.report.details import empty_answers
from ropewalk.evaluate.report.drawing import Drawing
from ropewalk.evaluate.report.figures import SECTIONS
from ropewalk.evaluate.report.findings import Findings
from ropewalk.evaluate.report.sheet import Sheet
from ropewalk.evaluate.report.svg import inline, render
from ropewalk.evaluate.report.tables import difference_rows, effective_table, score_tables
from ropewalk.evaluate.row import Key
from ropewalk.lengths import format_length


@dataclass(frozen=True)
class Shown:
    """A drawing with its SVG element."""

    drawing: Drawing
    svg: str

    @property
    def width(self) -> int:
        """CSS pixels, 96 an inch."""
        return round(96 * self.drawing.figure.get_figwidth())


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        title, source: see `ropewalk.evaluate.report.write_report`.
        found, shown: studies, and their figures in order.
        swatches: SVG element of each series for the filter.
        interrupted: samples in flight when their process ended.
    """

    title: str
    source: str
    found: list[Findings]
    shown: list[tuple[Findings, Shown]]
    swatches: dict[Series, str]
    interrupted: list[Key]

    def to_html(self) -> str:
        """The page. Every name and text of the rows is escaped, and the browser is told to load and to send nothing."""
        script = _read("page.js")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
        environment.filters["tokens"] = format_length
        return environment.from_string(_read("page.html")).render(
            title=self.title,
            source=self.source,
            samples=sum(len(one.study.rows) for one in self.found),
            script=Markup(script),
            style=Markup(_read("page.css")),
            script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            series=[(one, Markup(self.swatches[one])) for one in ordered(self.swatches)],
            studies=[self._study(number, one) for number, one in enumerate(self.found, start=1)],
            warnings=list(self._warnings()),
            interrupted=[str(key) for key in self.interrupted],
            empty=list(self._empty()),
        )

    def _study(self, number: int, found: Findings) -> dict[str, Any]:
        shown = [one for findings, one in self.shown if findings is found]
        sections = [
            (f"study-{number}-{key}", name, [(one, Markup(one.svg)) for one in shown if one.drawing.section == key])
            for key, name in SECTIONS.items()
        ]
        return {
            "number": number,
            "title": found.study.title,
            "effective": effective_table(found),
            "scores": score_tables(found),
            "sections": [section for section in sections if section[2]],
            "differences": difference_rows(found),
            "groups": found.groups,
        }

    def _warnings(self) -> Iterator[tuple[str, list[str]]]:
        """Every warning of a comparison, with the places that it was given for."""
        places: dict[str, list[str]] = {}
        for found in self.found:
            for one in found.against:
                place = f"{one.panel.name} at {format_length(one.length)}, {one.series.name}"
                for warning in one.comparison.warnings:
                    places.setdefault(warning, []).append(place)
            if not any(series.kind == "stock" for series in found.study.series):
                places.setdefault("no samples of the stock model, so nothing is compared with it", []).append(
                    found.study.title
                )
        yield from places.items()

    def _empty(self) -> Iterator[tuple[Series, str, int, int]]:
        """(series, study, empty answers, answers) where there are any."""
        for found in self.found:
            for series in found.study.series:
                counts = [empty_answers(row) for one, row in found.study.rows if one == series]
                empty, said = (sum(column) for column in zip(*counts, strict=True))
                if empty:
                    yield series, found.study.title, empty, said


def swatch(series: Series) -> str:
    """A short line as the series is drawn, within `ropewalk.evaluate.report.sheet.style`."""
    sheet = Sheet(0.5, 0.2)
    (axes,) = sheet.axes
    sheet.line(axes, series, [0.0, 0.5, 1.0], [0.0, 0.0, 0.0], markevery=[1], clip_on=False)
    axes.set_axis_off()
    return inline(render(sheet.figure, series.ident), f"swatch-{series.ident}", "")


def _read(name: str) -> str:
    return files("ropewalk.evaluate.report").joinpath(name).read_text(encoding="utf-8")
