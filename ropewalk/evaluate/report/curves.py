"""Lines: scores by length, loss by position."""

from collections.abc import Iterator

from ropewalk.evaluate.report.data import Panel, Series
from ropewalk.evaluate.report.details import loss_by_position
from ropewalk.evaluate.report.drawing import HEIGHT, WIDTH, Drawing, length_axis, mark_window, name_metric, slug
from ropewalk.evaluate.report.sheet import Sheet, look, plain
from ropewalk.evaluate.report.suites import Reach, Suite
from ropewalk.lengths import format_length

# (series, length, value, low, high)
Point = tuple[Series, int, float, float, float]


def macro_curve(suite: Suite, reaches: list[Reach], window: int | None) -> Drawing:
    points = [
        (reach.series, length, macro.score, macro.low, macro.high)
        for reach in reaches
        if reach.effective
        for length, macro in reach.effective.macros.items()
    ]
    caption = f"{suite.name}: macro score by length, the mean over tasks; bands: 95%, bootstrap over samples"
    return _curves(f"{suite.name}, macro", points, "macro score (%)", (-3, 103), window, caption, 1)


def task_curve(panel: Panel, window: int | None) -> Drawing:
    points = [
        (series, length, cell.mean, cell.interval.low, cell.interval.high)
        for (series, length), cell in panel.cells.items()
    ]
    limits = (-0.03, 1.03) if panel.is_score else None
    made = ", ".join(sorted({cell.interval.made_by for cell in panel.cells.values()}))
    caption = f"{panel.name}: {panel.metric} by length; bands: 95% intervals, {made}"
    return _curves(panel.name, points, name_metric(panel.metric), limits, window, caption, 2)


def position_curves(panel: Panel, window: int | None) -> Iterator[Drawing]:
    for length in panel.lengths:
        found = {series: loss_by_position(panel.cells[series, length].rows) for series in panel.series
                 if (series, length) in panel.cells}  # fmt: skip
        curves = {series: stretches for series, stretches in found.items() if len(stretches) > 1}
        if not curves:
            continue
        sheet = Sheet(WIDTH, HEIGHT)
        (axes,) = sheet.axes
        told = []
        for series, stretches in curves.items():
            middles = [(first + last) / 2 / 1024 for first, last, *_ in stretches]
            sheet.line(axes, series, middles, [loss for *_, loss, _ in stretches], ms=2.5, lw=1.2)
            told.append(f"{series.name}: {stretches[0][2]:.2f} at the start, {stretches[-1][2]:.2f} at the end")
        if window and window <= length:
            mark_window(axes, window / 1024, low=True)
        documents = sorted({n for stretches in curves.values() for *_, n in stretches})
        caption = (
            f"{panel.name} at {format_length(length)}: next-token loss by position, mean over "
            f"{'–'.join(map(str, dict.fromkeys((documents[0], documents[-1]))))} documents (lower is better)"
        )
        axes.set(title=plain(f"{panel.name}, {format_length(length)}"), ylabel="loss (nats per token)")
        axes.set_xlabel("position (thousands of tokens, 1k = 1024)")
        sheet.legend()
        name = slug("position", panel.name, format_length(length))
        yield Drawing("position", name, caption, f"{caption}. {'; '.join(told)}.", sheet.figure)


def _curves(
    title: str,
    points: list[Point],
    unit: str,
    limits: tuple[float, float] | None,
    window: int | None,
    caption: str,
    digits: int,
) -> Drawing:
    sheet = Sheet(WIDTH, HEIGHT)
    (axes,) = sheet.axes
    told = []
    for series in dict.fromkeys(point[0] for point in points):
        _, x, y, low, high = (list(column) for column in zip(*(p for p in points if p[0] == series), strict=True))
        colour = look(series).color
        if len(x) > 1:
            sheet.tag(series, axes.fill_between(x, low, high, color=colour, alpha=0.11, lw=0))
        else:
            sheet.tag(series, axes.vlines(x, low, high, color=colour, lw=1))
        sheet.line(axes, series, x, y, zorder=3 if series.kind == "stock" else 2)
        values = ", ".join(f"{format_length(n)} {value:.{digits}f}" for n, value in zip(x, y, strict=True))
        told.append(f"{series.name}: {values}")
    lengths = sorted({point[1] for point in points})
    length_axis(axes, lengths)
    if window and lengths[0] <= window <= lengths[-1]:
        mark_window(axes, window, low=limits is None)
    axes.set(title=plain(title), xlabel="length (tokens)", ylabel=unit)
    if limits:
        axes.set_ylim(*limits)
    sheet.legend()
    return Drawing("length", slug("length", title), caption, f"{caption}. {'; '.join(told)}.", sheet.figure)
