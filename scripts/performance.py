"""The tables and the figure of docs/performance.md, from the rows in benchmarks/results.

`python -m scripts.performance` writes both; `python -m scripts.docs` writes, or checks, the tables.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
FIGURE = ROOT / "docs" / "performance.png"
Row = dict[str, Any]
# What a case is called on the page, in the order of the page.
TABLES = {
    "prefill": ("prefill",),
    "bands": ("bands",),
    "decode": ("decode", "decode-unrotated", "decode-authors"),
    "llama.cpp": ("llama.cpp",),
}


def rows() -> list[Row]:
    """The latest row of every case, shape, length and backend; old rows that do not say against what are left out."""
    latest: dict[tuple[object, ...], Row] = {}
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            if "against" in row or row["case"].startswith("model/"):
                latest[row["case"], row.get("shape"), row["length"], row["backend"]] = row
    return list(latest.values())


def length_of(row: Row) -> str:
    return f"{row['length'] // 1024}k"


def table(found: list[Row], kinds: tuple[str, ...]) -> str:
    """One line per case and shape, one column per length: processor time / time on the clock (p20-p80)."""
    mine = [row for row in found if row["case"].partition("/")[0] in kinds]
    if not mine:
        return "Not measured yet."
    lengths = sorted({row["length"] for row in mine})
    lines = [
        "| case | backend | heads | " + " | ".join(f"{n // 1024}k" for n in lengths) + " |",
        "|---" * (3 + len(lengths)) + "|",
    ]
    keys = dict.fromkeys((row["case"], row["backend"], row["shape"]) for row in mine)
    for key in sorted(keys, key=lambda k: (kinds.index(k[0].partition("/")[0]), k)):
        cells = {row["length"]: row for row in mine if (row["case"], row["backend"], row["shape"]) == key}
        texts = [spelled(cells[n]) if n in cells else "" for n in lengths]
        lines.append("| " + " | ".join([f"`{key[0]}`", key[1], key[2], *texts]) + " |")
    return "\n".join(lines)


def spelled(row: Row) -> str:
    return f"**{row['cpu_ratio']:.2f}** / {row['ratio']:.2f} ({row['p20']:.2f}-{row['p80']:.2f})"


def model_table(found: list[Row]) -> str:
    """One line per method and length of the end-to-end runs."""
    lines = ["| model, method, length | threads | prefill | decode | peak memory |", "|---|---|---|---|---|"]
    for row in found:
        if row["case"].startswith("model/"):
            cells = [f"{row['model'].removeprefix('package:')}, {row['method']}, {length_of(row)}", str(row["threads"])]
            for what in ("prefill", "decode"):
                low, high = row[f"{what}_range"]
                times = f"{row[f'{what}_s']:.3g} s, stock {row[f'{what}_stock_s']:.3g} s"
                ratio, cpu = row[f"{what}_ratio"], row[f"{what}_cpu_ratio"]
                cells.append(f"**{cpu:.2f}** / {ratio:.2f} ({low:.2f}-{high:.2f}); {times}")
            peak, stock = (row[name] / 2**20 for name in ("peak_bytes", "peak_stock_bytes"))
            cells.append(f"**{row['peak_ratio']:.2f}**; {peak:.0f} MiB, stock {stock:.0f} MiB")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet."


def page(text: str) -> str:
    """docs/performance.md with everything between its markers replaced."""
    found = rows()
    made = {name: table(found, kinds) for name, kinds in TABLES.items()} | {"model": model_table(found)}
    for name, content in made.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, opened, rest = text.partition(start)
        _, closed, after = rest.partition(stop)
        if not (opened and closed):
            raise SystemExit(f"docs/performance.md has no place for {name}: it needs the lines {start} and {stop}")
        text = f"{before}{start}\n\n{content}\n\n{stop}{after}"
    return text


def draw() -> None:
    """Processor time of DPE over that of stock, prefill and decode by length, one line per shape and backend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    for axis, case in zip(axes, ("prefill/dpe", "decode/dpe"), strict=True):
        mine = sorted((row for row in rows() if row["case"] == case), key=lambda row: row["length"])
        for key in dict.fromkeys((row["shape"], row["backend"]) for row in mine):
            points = [row for row in mine if (row["shape"], row["backend"]) == key]
            ratios = [row["cpu_ratio"] for row in points]
            axis.plot([row["length"] for row in points], ratios, marker="o", label=f"{key[0]}, {key[1]}")
        axis.axhline(1, color="0.4", linewidth=1, linestyle="--")
        axis.set_xscale("log", base=2)
        ticks = sorted({row["length"] for row in mine})
        axis.set_xticks(ticks, [f"{n // 1024}k" for n in ticks])
        axis.set_ylim(0, 1.3)
        axis.set_xlabel("tokens")
        axis.set_title(case.partition("/")[0])
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("processor time / stock")
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=130, metadata={"Software": None})


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))
    draw()
    print(f"written: {PAGE.relative_to(ROOT)}, {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
