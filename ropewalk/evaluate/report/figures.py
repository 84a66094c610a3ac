"""The figures of a report, one for each thing to look at; every one has its own legend and can stand alone."""

from collections.abc import Iterator
from dataclasses import replace

from ropewalk.evaluate.report.comparisons import cost_points, difference_bars
from ropewalk.evaluate.report.curves import macro_curve, position_curves, task_curve
from ropewalk.evaluate.report.details import trained_window
from ropewalk.evaluate.report.drawing import Drawing
from ropewalk.evaluate.report.findings import Findings
from ropewalk.evaluate.report.heat import depth_maps

# In the order of a page.
SECTIONS = {
    "length": "Score by length",
    "depth": "Depth",
    "position": "Loss by position",
    "difference": "Differences against stock",
    "cost": "Cost against quality",
}


def draw(findings: list[Findings], *, window: int | None = None) -> Iterator[tuple[Findings, Drawing]]:
    """Every figure of every study, within `ropewalk.evaluate.report.sheet.style`; no two have the same name.

    Args:
        window: that the models were trained on, tokens; None: what the rows tell.
    """
    taken: dict[str, int] = {}
    for number, one in enumerate(findings, start=1):
        for drawing in _study(one, window or trained_window(row for _, row in one.study.rows)):
            name = drawing.name if len(findings) == 1 else f"model-{number}-{drawing.name}"
            taken[name] = taken.get(name, 0) + 1
            yield one, replace(drawing, name=name if taken[name] == 1 else f"{name}--{taken[name]}")


def _study(found: Findings, window: int | None) -> Iterator[Drawing]:
    panels = found.study.panels
    for suite, reaches in found.suites:
        if len(suite.panels) > 1:
            yield macro_curve(suite, reaches, window)
    for panel in panels:
        yield task_curve(panel, window)
    for suite, _ in found.suites:
        yield from depth_maps(suite)
    for panel in panels:
        yield from position_curves(panel, window)
    yield from difference_bars(found.against)
    grouped = {panel.name for suite, _ in found.suites for panel in suite.panels}
    for suite, _ in found.suites:
        yield from cost_points(suite.name, suite.panels)
    for panel in (panel for panel in panels if panel.name not in grouped):
        yield from cost_points(panel.name, [panel])
