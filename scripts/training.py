"""The tables and figures of docs/measurements/training.md, from the rows beside it.

`python -m scripts.training` writes both; `python -m scripts.docs` writes, or checks, the tables.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from ropewalk.lengths import format_length
from scripts.method_pages import fill, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "measurements" / "training.md"
FOLDER = PAGE.with_suffix("")
WINDOW = 128  # tokens that the fixture was trained on
Row = dict[str, Any]
CURVES = {
    "comparison": (
        *("stock", "clex, untrained", "clex", "clex, log-n", "yarn, pose", "pi, pose, log-n", "e2-llm, log-n"),
        *("randpos, log-n", "alibi, from scratch"),
    ),
    "ablation": (
        *("clex, untrained", "clex", "network frozen", "network alone, rate 5e-6"),
        "residual network alone, rate 1e-4",
        *("random places", "clex, untrained, log-n", "clex, log-n", "network frozen, log-n"),
    ),
    "scaling": tuple(
        "clex" if (width, length) == (64, 128) else f"width {width}, {length} tokens"
        for width in (32, 64, 128)
        for length in (64, 128, 256)
    ),
}


def rows() -> list[Row]:
    """All rows, in the order of the file."""
    return [json.loads(line) for line in (FOLDER / "rows.jsonl").read_text().splitlines()]


def cells(found: list[Row], group: str) -> dict[str, dict[int, list[Row]]]:
    """Rows of a group by setting and length, one of every seed; a run that was stopped stands under length 0."""
    made: dict[str, dict[int, list[Row]]] = {}
    for row in found:
        if row["group"] == group:
            made.setdefault(row["name"], {}).setdefault(row["length"] or 0, []).append(row)
    return made


def mean(values: Sequence[float], digits: int) -> str:
    """A mean over seeds with the half-width of its 95% interval (Student's t), where there are two seeds or more."""
    text = f"{fmean(values):.{digits}f}"
    if len(set(values)) < 2:
        return text  # one seed, or seeds that agree, whose interval would be of no width
    return f"{text} ± {half(values):.{digits}f}"


def half(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of a mean, Student's t."""
    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))


def both(part: list[Row]) -> str:
    """Needle and local accuracy."""
    return " / ".join(mean([row[name] for row in part], 2) for name in ("needle", "local"))


def losses(part: list[Row]) -> str:
    """Loss of the needles' answers and of the local task, nats."""
    return " / ".join(mean([row[name] for row in part], 3) for name in ("needle_loss", "local_loss"))


def by_length(group: str, found: list[Row], cell: Callable[[list[Row]], str]) -> str:
    """A line for every setting, a column for every length."""
    made = cells(found, group)
    if not made:
        return "Not measured yet."
    lengths = sorted({length for one in made.values() for length in one if length})
    lines = []
    for name, one in made.items():
        seeds = len(next(iter(one.values())))
        if 0 in one:
            lines.append((f"`{name}`", str(seeds), f"stopped: {one[0][0]['stopped']}", *[""] * (len(lengths) - 1)))
            continue
        lines.append((f"`{name}`", str(seeds), *(cell(one[length]) if length in one else "" for length in lengths)))
    heads = [f"{format_length(n)} ({n / WINDOW:g}x)" for n in lengths]
    return table("| | seeds | " + " | ".join(heads) + " |", lines)


def pushed(found: list[Row]) -> str:
    """How far training moved the table of CLEX."""
    lines = []
    for group in ("comparison", "ablation"):
        for name, one in cells(found, group).items():
            values = [row["moved"] for row in one.get(2048, []) if row.get("moved") and row["positions"] == "clex"]
            if values:
                lines.append((f"`{name}`", f"{fmean(values):.3f}"))
    return table("| | largest change of ln theta at t = 16 |", lines)


def page(text: str) -> str:
    """docs/measurements/training.md with everything between its markers replaced."""
    found = rows()
    kinds = {"comparison": both, "ablation": both, "buckets": losses, "scaling": both, "recovery": both}
    for group, cell in kinds.items():
        text = fill(text, group, by_length(group, found, cell))
    return fill(text, "moved", pushed(found))


def draw(group: str) -> None:
    """Both accuracies by length, a line for every setting that was measured; bands: 95% intervals over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ropewalk.evaluate.figure import MARKERS
    from ropewalk.evaluate.report.sheet import INK, PALETTE, style

    found = rows()
    made = {name: one for each in CURVES for name, one in cells(found, each).items()}
    with style():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, task in zip(figure.subplots(1, 2, sharey=True), ("needle", "local"), strict=True):
            names = [name for name in CURVES[group] if name in made and 0 not in made[name]]
            for number, name in enumerate(names):
                colour = INK if name == "stock" else PALETTE[number % len(PALETTE)]
                lengths = sorted(made[name])
                values = [[row[task] for row in made[name][length]] for length in lengths]
                line = ":" if "untrained" in name else "--" if name.endswith("log-n") else "-"
                axes.plot(
                    lengths, [fmean(one) for one in values], color=colour, ls=line,
                    marker=MARKERS[number % len(MARKERS)], label=name,
                )  # fmt: skip
                if all(len(one) > 1 for one in values):
                    low, high = ([fmean(one) + sign * half(one) for one in values] for sign in (-1, 1))
                    axes.fill_between(lengths, low, high, color=colour, alpha=0.11, lw=0)
            axes.axvline(WINDOW, color="0.5", ls=":", lw=1)
            axes.set_xscale("log", base=2)
            ticks = [WINDOW * 2**power for power in range(5)]
            axes.set_xticks(ticks, [f"{tick}\n{tick // WINDOW}x" for tick in ticks])
            axes.minorticks_off()
            axes.set(title=task, xlabel="tokens", ylim=(-0.03, 1.03))
        figure.axes[0].set_ylabel("accuracy")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", handlelength=3)
        figure.savefig(FOLDER / f"{group}.png", dpi=110, facecolor="white", metadata={"Software": None})


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))
    for group in CURVES:
        draw(group)
    print(f"written: {PAGE.relative_to(ROOT)}, {', '.join(CURVES)} in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
