"""What each group of rotary pairs makes of its scales, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from ropewalk.profile import Profile

# Where a curve falls by hundreds of times the margin, differences at the top would be a line.
LINEAR = 0.5  # nats below the best candidate that are drawn to scale; beyond that logarithmically


def draw_curves(profiles: Sequence[Profile], path: str | Path) -> None:
    """Save a picture of the search for every group's scale, one panel for each profile.

    Up: as good as the group's best candidate; down: answers less probable, in nats, with two standard errors of the
    paired difference. Hollow: stopped after fewer documents. Ringed: taken.

    Args:
        profiles: of `ropewalk calibrate dpe`.
        path: file to write; its ending chooses the format (png, pdf, svg).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.2 * len(profiles), 4), layout="constrained", dpi=120)
    for panel, profile in zip(figure.subplots(1, len(profiles), squeeze=False)[0], profiles, strict=True):
        made = profile.provenance
        for number, searched in enumerate(one for one in made["axes"] if one["axis"]["field"] == "scales"):
            points, colour = searched["points"], f"C{number}"
            scales = [point["value"] for point in points]
            below = [-point["below_best"] for point in points]
            errors = [2 * point["error"] for point in points]
            panel.errorbar(scales, below, yerr=errors, color=colour, lw=1.2, elinewidth=1, capsize=2)
            for point, scale, worse in zip(points, scales, below, strict=True):
                filled = colour if point["outcome"] != "stopped" else "white"
                panel.plot(scale, worse, "o", ms=5, color=colour, markerfacecolor=filled)
                if point["outcome"] == "chosen":
                    panel.plot(scale, worse, "o", ms=11, color=colour, markerfacecolor="none")
            panel.plot([], [], color=colour, label=searched["axis"]["label"])
        panel.set_xscale("log", base=2)
        ticks = sorted({point["value"] for one in made["axes"] for point in one["points"]})
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_yscale("symlog", linthresh=LINEAR)
        panel.set(xlabel="scale", ylabel="answer log-probability below the group's best, nats")
        panel.set_title(f"{made['model']} at {made['target_length']:,} tokens: {made['kept']} kept", fontsize=9)
        panel.legend(frameon=False, fontsize=7, loc="lower right")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
