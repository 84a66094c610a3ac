"""Write a report: the page, and every figure as PNG and SVG."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.report.drawing import Drawing
from ropewalk.evaluate.report.figures import draw
from ropewalk.evaluate.report.findings import Findings, find
from ropewalk.evaluate.report.page import Page, Shown, swatch
from ropewalk.evaluate.report.sheet import style
from ropewalk.evaluate.report.svg import inline, render
from ropewalk.evaluate.row import Key, Row

PAGE = "report.html"
FIGURES = "figures"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page: the HTML file.
        figures: PNG and SVG files, in the order of the page.
        rows: samples that it shows.
    """

    page: Path
    figures: tuple[Path, ...]
    rows: int


def figures(rows: Sequence[Row], *, pretrained_length: int | None = None) -> list[Drawing]:
    """The figures of a report, to be changed or saved by other means: `Drawing.figure` is matplotlib's.

    Args:
        rows: from `Store.rows`.
        pretrained_length: window that the model was trained on, tokens; None: what the rows tell, if they do.

    Raises:
        EvaluationError: there are no rows.
    """
    found = find(rows)
    with style():
        return [drawing for _, drawing in draw(found, window=pretrained_length)]


def write_report(
    rows: Sequence[Row],
    output: Path,
    *,
    title: str = "ropewalk report",
    source: str = "",
    interrupted: Sequence[Key] = (),
    calibration: Collection[str] = (),
    pretrained_length: int | None = None,
) -> Written:
    """Write `report.html` and the folder `figures`; files of an earlier report with the same names are replaced.

    Args:
        rows: from `Store.rows`.
        output: folder, made where there is none.
        title: of the page.
        source: what the rows come from, as the page says it.
        interrupted: from `Store.interrupted`; calibration: from `Store.calibration`.
        pretrained_length: window that the model was trained on, tokens; None: what the rows tell, if they do.

    Raises:
        EvaluationError: there are no rows, or the folder cannot be written to.
    """
    found = find(rows, calibration=calibration)
    try:
        (output / FIGURES).mkdir(parents=True, exist_ok=True)
        files: list[Path] = []
        shown: list[tuple[Findings, Shown]] = []
        with style():
            for findings, drawing in draw(found, window=pretrained_length):
                text = render(drawing.figure, drawing.name)
                drawing.figure.set_layout_engine("none")  # laid out once: the second file keeps the places of the first
                files += [output / FIGURES / f"{drawing.name}.{kind}" for kind in ("png", "svg")]
                drawing.figure.savefig(files[-2], facecolor="white", metadata={"Software": "ropewalk"})
                files[-1].write_text(text, encoding="utf-8")
                shown.append((findings, Shown(drawing, inline(text, drawing.name, drawing.alt))))
            swatches = {series: swatch(series) for one in found for series in one.study.series}
        page = Page(title, source, found, shown, swatches, list(interrupted))
        (output / PAGE).write_text(page.to_html(), encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"cannot write the report to {str(output)!r} ({error.strerror}); name a folder that can be written to"
        ) from error
    return Written(output / PAGE, tuple(files), len(rows))
