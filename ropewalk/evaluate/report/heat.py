"""Depth heat maps: one for each method, the number of scores in every cell."""

from collections.abc import Iterator

from ropewalk.evaluate.report.data import Series
from ropewalk.evaluate.report.details import DepthMap, depth_map
from ropewalk.evaluate.report.drawing import Drawing, slug
from ropewalk.evaluate.report.sheet import GREY, Sheet, plain
from ropewalk.evaluate.report.suites import Suite
from ropewalk.lengths import format_length

DARK, LIGHT = "#0b0b0c", "#ffffff"


def depth_maps(suite: Suite) -> Iterator[Drawing]:
    for series in dict.fromkeys(series for panel in suite.panels for series in panel.series):
        cells = {panel.task: [c for (one, _), c in panel.cells.items() if one == series] for panel in suite.panels}
        found = {task: depth_map(row for cell in some for row in cell.rows) for task, some in cells.items()}
        tasks = [task for task, one in found.items() if one]
        pooled = depth_map(row for task in tasks for cell in cells[task] for row in cell.rows)
        if pooled:
            yield _depth_map(suite.name, tasks, series, pooled)


def _depth_map(name: str, tasks: list[str], series: Series, found: DepthMap) -> Drawing:
    lengths = sorted({length for _, length in found.cells})
    sheet = Sheet(1.2 + 0.48 * max(3, len(lengths)), 0.95 + 0.28 * len(found.depths))
    (axes,) = sheet.axes
    values = [[found.cells.get((i, n), (float("nan"), 0))[0] for n in lengths] for i in range(len(found.depths))]
    mesh = axes.pcolormesh(values, cmap="cividis", vmin=0, vmax=1, edgecolors=GREY, lw=0.4)
    for (depth, length), (mean, n) in found.cells.items():
        colour = _text_colour(mesh.cmap(mean))
        place = (lengths.index(length) + 0.5, depth + 0.5)
        axes.annotate(f"{mean:.2f}", place, ha="center", va="bottom", color=colour, fontsize=7.5, xytext=(0, -1.5),
                      textcoords="offset points")  # fmt: skip
        axes.annotate(f"n={n}", place, ha="center", va="top", color=colour, fontsize=5.5, xytext=(0, -2.5),
                      textcoords="offset points")  # fmt: skip
    axes.set_xticks([i + 0.5 for i in range(len(lengths))], [format_length(n) for n in lengths])
    axes.set_yticks([i + 0.5 for i in range(len(found.depths))], found.depths)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.invert_yaxis()
    axes.set(title=plain(f"{series.name}, {name}"), xlabel="length (tokens)", ylabel="depth (start on top)")
    of = f", {len(tasks)} tasks pooled: {', '.join(tasks)}" if len(tasks) > 1 else ""
    caption = f"{series.name} on {name}: mean score by depth and length, n scores a cell{of}"
    told = "; ".join(
        f"{found.depths[depth]} at {format_length(length)}: {mean:.2f}, n {n}"
        for (depth, length), (mean, n) in sorted(found.cells.items())
    )
    return Drawing("depth", slug("depth", name, series.name), caption, f"{caption}. {told}.", sheet.figure, series)


def _text_colour(cell: tuple[float, float, float, float]) -> str:
    """Of dark and light the one with more contrast on a cell, by WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in cell[:3]]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return DARK if (luminance + 0.05) ** 2 > 0.05 * 1.05 else LIGHT
