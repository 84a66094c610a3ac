"""Differences against stock with their intervals, and cost against quality."""

from collections.abc import Callable, Iterator

from ropewalk.evaluate.metric import lower_is_better
from ropewalk.evaluate.report.cost import CPU, Cost, costs
from ropewalk.evaluate.report.data import Panel
from ropewalk.evaluate.report.differences import Against
from ropewalk.evaluate.report.drawing import HEIGHT, WIDTH, Drawing, name_metric, slug
from ropewalk.evaluate.report.sheet import INK, Sheet, look, plain
from ropewalk.lengths import format_length

GIB = 2**30
# Prices that differ by more stand on a logarithmic axis.
WIDE = 5
MEMORY = "peak memory (GiB)"


def difference_bars(against: list[Against]) -> Iterator[Drawing]:
    groups: dict[tuple[bool, str, int], list[Against]] = {}
    for one in against:
        if one.comparison.difference:
            unit = "score" if one.panel.is_score else one.panel.metric
            groups.setdefault((not one.panel.is_score, unit, one.length), []).append(one)
    for (_, unit, length), group in sorted(groups.items(), key=lambda item: item[0]):
        yield _difference(unit, length, group)


def _difference(unit: str, length: int, group: list[Against]) -> Drawing:
    panels = list(dict.fromkeys(one.panel.name for one in group))
    rows: list[float] = []
    starts, at = [], 0.0
    for name in panels:
        members = sum(one.panel.name == name for one in group)
        starts.append((at + (members - 1) / 2, name))
        rows += [at + i for i in range(members)]
        at += members + 1.2
    sheet = Sheet(WIDTH, 0.9 + 0.105 * at)
    (axes,) = sheet.axes
    axes.axvline(0, color=INK, lw=0.8)
    told = []
    for row, one in zip(rows, group, strict=True):
        difference = one.comparison.difference
        assert difference is not None
        interval, colour = difference.interval, look(one.series).color
        dash = look(one.series).linestyle
        sheet.tag(one.series, axes.hlines(row, interval.low, interval.high, color=colour, lw=1.1, linestyle=dash))
        sure = one.comparison.holm_p is not None and one.comparison.holm_p < 0.05
        sheet.line(axes, one.series, [difference.mean], [row], markerfacecolor=colour if sure else "none", ms=4)
        told.append(f"{one.panel.name}, {one.series.name}: {difference.mean:+.2f}")
    axes.set_yticks([place for place, _ in starts], [plain(name) for _, name in starts])
    axes.set_ylim(at - 1.2, -1)
    axes.grid(axis="y", visible=False)
    worse = ", lower is better" if lower_is_better(unit) else ""
    axes.set(title=f"against stock at {format_length(length)}", xlabel=f"difference of {plain(unit)}{worse}")
    sheet.legend()
    caption = (
        f"Difference against stock at {format_length(length)} on the same prompts, with 95% intervals ({unit}{worse}); "
        f"filled: Holm p < 0.05"
    )
    name = slug("difference", unit, format_length(length))
    return Drawing("difference", name, caption, f"{caption}. {'; '.join(told)}.", sheet.figure)


def cost_points(name: str, panels: list[Panel]) -> Iterator[Drawing]:
    unit = "mean score" if panels[0].is_score else name_metric(panels[0].metric)
    for device, found in costs(panels).items():
        axis = "CPU seconds per document" if device == CPU else f"seconds per document ({plain(device)})"
        yield _cost(name, device, "time", found, lambda one: one.seconds, axis, unit)
        known = [one for one in found if one.peak_bytes is not None]
        if known:
            yield _cost(
                name, device, "memory", known, lambda one: (one.peak_bytes or 0) / GIB, "peak memory (GiB)", unit
            )


def _cost(
    name: str, device: str, kind: str, found: list[Cost], price: Callable[[Cost], float], axis: str, unit: str
) -> Drawing:
    sheet = Sheet(WIDTH, HEIGHT)
    (axes,) = sheet.axes
    longest = max(one.length for one in found)
    told = []
    for series in dict.fromkeys(one.series for one in found):
        mine = [one for one in found if one.series == series]
        sheet.line(axes, series, [price(one) for one in mine], [one.quality for one in mine], lw=0.7, ms=3.5)
        last = mine[-1]
        if last.length == longest:
            colour = look(series).color
            sheet.tag(series, *axes.plot(price(last), last.quality, color=colour, marker=look(series).marker, ms=8))
        told.append(f"{series.name} at {format_length(last.length)}: {price(last):.3g}, {last.quality:.2f}")
    prices = [price(one) for one in found]
    if min(prices) > 0 and max(prices) > WIDE * min(prices):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axes.set(title=plain(name), xlabel=axis, ylabel=unit)
    sheet.legend()
    lengths = ", ".join(format_length(n) for n in sorted({one.length for one in found}))
    caption = f"{name}: quality against {axis}; a line joins the lengths {lengths}, the largest is the large marker"
    return Drawing("cost", slug("cost", kind, name, device), caption, f"{caption}. {'; '.join(told)}.", sheet.figure)
