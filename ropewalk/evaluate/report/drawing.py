"""A figure with what is said about it, and what figures share."""

import re
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ropewalk.evaluate.metric import lower_is_better
from ropewalk.evaluate.report.data import Series
from ropewalk.evaluate.report.sheet import GREY, plain
from ropewalk.lengths import format_length

# Inches, without the legend: a figure that is read on a telephone as well.
WIDTH = 4.3
HEIGHT = 2.7


@dataclass(frozen=True)
class Drawing:
    """A figure with what is said about it.

    Attributes:
        section: "length", "depth", "position", "difference" or "cost".
        name: for files and ids: letters, digits and hyphens.
        caption: below it; `alt`: its numbers, for readers who cannot see it.
        series: that all of it is about, or None.
    """

    section: str
    name: str
    caption: str
    alt: str
    figure: Figure
    series: Series | None = None


def slug(*words: object) -> str:
    """Words as letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", str(word).lower()).strip("-") or "x" for word in words)


def length_axis(axes: Axes, lengths: list[int]) -> None:
    """A logarithmic axis of lengths, with a tick at each tested one."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [format_length(length) for length in lengths])
    axes.minorticks_off()
    if len(lengths) > 1:
        axes.set_xlim(lengths[0] / 1.12, lengths[-1] * 1.12)


def mark_window(axes: Axes, place: float, *, low: bool) -> None:
    """A line at the trained window, in the unit of the axis; its name stands where the curves inside are not.

    Args:
        low: the curves inside are low, as losses are.
    """
    axes.axvline(place, color=GREY, ls=(0, (1, 1.5)), lw=1)
    end, away = ("top", -3) if low else ("bottom", 3)
    axes.annotate(
        "trained window", (place, float(low)), xycoords=("data", "axes fraction"), xytext=(-3, away),
        textcoords="offset points", ha="right", va=end, color=GREY, fontsize=7, rotation=90,
    )  # fmt: skip


def name_metric(metric: str) -> str:
    """A metric as an axis names it."""
    return f"{plain(metric)} (lower is better)" if lower_is_better(metric) else plain(metric)
