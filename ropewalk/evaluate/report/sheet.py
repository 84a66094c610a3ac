"""The paper that figures are drawn on: one style, a colour and a marker for each series, parts that can be hidden."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ropewalk.evaluate.figure import COLOURS, MARKERS
from ropewalk.evaluate.report.data import Series

# Of text, axes and the stock model; nothing else has it, so a page can put its own colour of text in its place.
INK = "#1a1a1b"
# Seen on white and on black.
GREY = "#808080"
PAPER = "background"
# Inches.
LEGEND_LINE = 0.165
DASHES = ("--", (0, (4, 2, 1, 2)), ":", (0, (7, 2)))
# Without black, which is the stock model's, and yellow, which is not seen on white.
PALETTE = COLOURS[1:7]

STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.alpha": 0.22,
    "grid.color": GREY,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "text.color": INK,
    # Names of methods are no formulas.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save in here: some settings count when a figure is made, others when it is written."""
    with matplotlib.rc_context(STYLE):
        yield


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    color: str
    marker: str
    linestyle: Any

    def line(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.linestyle}


def look(series: Series) -> Look:
    """Stock in the colour of text; methods solid, in colours that colour-blind readers tell apart; controls grey."""
    if series.kind == "stock":
        return Look(INK, MARKERS[0], "-")
    if series.kind == "control":
        return Look(GREY, "ov^D"[series.place % 4], DASHES[series.place % len(DASHES)])
    return Look(PALETTE[series.place % len(PALETTE)], MARKERS[1:][series.place % (len(MARKERS) - 1)], "-")


def plain(text: str) -> str:
    """Text as a figure can hold it: no control characters, and nothing that a legend would leave out."""
    shown = "".join(char if char.isprintable() else "�" for char in text)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f" {shown}" if shown.startswith("_") else shown


class Sheet:
    """A figure whose parts know their series: `ropewalk.evaluate.report.svg` makes classes of that.

    Args:
        width, height: inches.
    """

    def __init__(self, width: float, height: float, *, columns: int = 1) -> None:
        self.figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self.figure)  # no display, and no global state of pyplot
        self.figure.patch.set_gid(PAPER)
        self.axes: list[Axes] = list(self.figure.subplots(1, columns, squeeze=False)[0])
        for number, axes in enumerate(self.axes):
            axes.patch.set_gid(f"{PAPER}--{number}")
        self.handles: dict[Series, Line2D] = {}
        self._tags = 0

    def tag(self, series: Series, *artists: Artist) -> None:
        """Say whose these are."""
        for artist in artists:
            self._tags += 1
            artist.set_gid(f"{series.ident}--{self._tags}")

    def line(self, axes: Axes, series: Series, x: list[float], y: list[float], **style: Any) -> None:
        """A line of a series, which then stands in the legend."""
        (line,) = axes.plot(x, y, **look(series).line() | style)
        self.tag(series, line)
        self.handles.setdefault(series, Line2D([], [], **look(series).line()))

    def legend(self) -> None:
        """One legend below all axes; the figure grows by its lines."""
        if not self.handles:
            return
        names = [plain(series.name) for series in self.handles]
        columns = max(1, min(3, 66 // (max(map(len, names)) + 8)))
        self.figure.set_figheight(self.figure.get_figheight() + LEGEND_LINE * math.ceil(len(names) / columns))
        legend = self.figure.legend(
            list(self.handles.values()), names, loc="outside lower center", ncols=columns, handlelength=2.4
        )
        for series, handle, text in zip(self.handles, legend.legend_handles, legend.get_texts(), strict=True):
            assert handle is not None
            self.tag(series, handle, text)
