"""The demo's figure: loss by position, and facts found."""

from pathlib import Path
from typing import Any

# Okabe and Ito's palette: told apart by colour-blind readers; black is kept for the stock model.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS = "osD^vP*X"

BARS = {"ecolor": "0.35", "capsize": 3, "lw": 1}


def draw(report: dict[str, Any], file: Path) -> None:
    """Save the figure of what `ropewalk.evaluate.demo.run` returns.

    Left: next-token loss along the document, the trained window marked. Right: the fraction of facts found with its 95%
    interval, and the mean log-probability of the true answers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)  # no display, and no global state of pyplot
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    results = report["results"]
    for index, result in enumerate(results):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        stretches = result["details"][0]["loss_by_position"]
        middles = [(first + last) / 2 / 1024 for first, last, _ in stretches]
        left.plot(middles, [loss for *_, loss in stretches], label=_label(result["method"]), ms=4, lw=1.5, **style)
    left.axvline(report["pretrained_length"] / 1024, color="0.4", ls="--", lw=1)
    left.annotate(
        "trained window", (report["pretrained_length"] / 1024, 1), xycoords=("data", "axes fraction"),
        xytext=(-4, -4), textcoords="offset points", ha="right", va="top", color="0.3", fontsize=9,
    )  # fmt: skip
    left.set_xlabel("position (thousands of tokens, 1k = 1024)")
    left.set_ylabel("next-token loss (nats)")
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.92))

    rows = range(len(results))
    scores = [result["score"] for result in results]
    low, high = ([abs(result["score"] - result["ci95"][end]) for result in results] for end in (0, 1))
    colours = [COLOURS[index % len(COLOURS)] for index in rows]
    right.barh(rows, scores, color=colours, alpha=0.85, xerr=[low, high], error_kw=BARS)
    for row, result in zip(rows, results, strict=True):
        found = f"{round(result['score'] * result['n'])}/{result['n']}"
        right.annotate(
            f"{found}   log p = {result['details'][0]['log_probability']:.2f}", (1.04, row), va="center", fontsize=9,
            annotation_clip=False,
        )  # fmt: skip
    right.set_yticks(rows, [_label(result["method"]) for result in results])
    right.invert_yaxis()
    right.set_xlim(0, 1.02)
    right.set_xlabel("facts found (95% interval)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report['model']} at {report['length'] // 1024}k tokens", fontsize=11)
    figure.savefig(file)


def _label(method: str) -> str:
    return "stock" if method == "none" else method
