"""What docs/methods/*.md and docs/choosing.md take from the code and from the measured rows; `scripts.docs` writes it.

A page of docs/methods is a generated head and prose below the line END, which is kept. docs/choosing.md has places
between markers.
"""

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.cli.methods import listed
from ropewalk.methods import DPE, METHODS, Method, parse
from ropewalk.methods.scaled import ScaledTable
from ropewalk.models.describe import shorten
from ropewalk.rotary import RotarySpec, default_inv_freq

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROWS = DOCS / "measurements" / "smollm2_methods.jsonl"
LENGTH = 16384  # tokens, twice the trained window
# SmolLM2-135M-Instruct, as `ropewalk.models.spec.spec_from_config` reads it
SPEC = RotarySpec(
    head_dim=64,
    rotary_dim=64,
    base=100000.0,
    pretrained_length=8192,
    num_heads=9,
    num_kv_heads=3,
    num_layers=30,
    inv_freq=tuple(default_inv_freq(100000.0, 64).astype(np.float32).astype(np.float64).tolist()),
)
END = "<!-- end of what `python -m scripts.docs` writes; edit below -->"
PAIRS = ("dpe+yarn", "string+yarn")


def example(name: str) -> Method:
    """The method as it is drawn and tabled: nothing given, except the factors that `longrope` cannot do without.

    Of dpe its rule, which other models get, not the profile that is shipped for this one.
    """
    if name == "dpe":
        return DPE(shipped=False)
    if name != "longrope":
        return parse(name)
    start = parse("yarn-lambda").resolve(SPEC, LENGTH)  # where LongRoPE's search starts
    assert isinstance(start, ScaledTable)
    return METHODS.get(name)(long=tuple(start.slowdown(SPEC).round(3).tolist()))  # type: ignore[call-arg]


def table(header: str, rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the header is written with its bars."""
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows])


def meanings(method: type[Method]) -> dict[str, str]:
    """What the docstrings say about every field, the class before its bases."""
    found: dict[str, str] = {}
    for owner in reversed(method.__mro__):
        _, _, attributes = (inspect.cleandoc(owner.__doc__ or "")).partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


def value_of(value: Any) -> str:
    """A filled value for a table cell."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.5g}" if isinstance(value, float) else shorten(value)


def parameters(name: str) -> str:
    """One row per field: its meaning and its value on SmolLM2 at LENGTH tokens when it is left out."""
    method, text, chosen = METHODS.get(name), meanings(METHODS.get(name)), example(name).why(SPEC, LENGTH)
    rows = []
    for field in fields(method):
        filled = value_of(chosen[field.name][0]) if field.name in chosen else "-"
        if name == "dpe" and field.name == "shipped":
            filled = value_of(field.default)
        if name == "longrope" and field.name == "long":
            filled = "must be given, here or in `file`"
        label = f"`{field.name}`" + ("" if field.metadata.get("written", True) else " (Python only)")
        rows.append((label, text[field.name], filled))
    own = [row for row in rows if row[0] not in ("`logit_scale`", "`log_n`", "`stack`")]
    return table("| parameter | meaning | left out, SmolLM2 at 16k |", own + [row for row in rows if row not in own])


def measured(names: list[str] | None, length: int) -> str:
    """The measured rows of the methods that contain one of `names` (all if None), averaged over documents; or ""."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in map(json.loads, ROWS.read_text().splitlines()):
        parts = {part.partition(":")[0] for part in row["m"].split("+")}
        if row["L"] == length and (names is None or parts & set(names)):
            groups.setdefault(row["m"], []).append(row)
    lines = []
    for name, rows in groups.items():
        mean = {key: np.mean([row[key] for row in rows]) for key in ("logp", "loss", "loss_last", "cpu")}
        hits = f"{sum(int(row['hits']) for row in rows)} / {10 * len(rows)}"
        figures = (f"{mean['logp']:.2f}", f"{mean['loss']:.3f}", f"{mean['loss_last']:.3f}", f"{mean['cpu']:.0f}")
        lines.append((f"`{name}`", str(len(rows)), hits, *figures))
    header = "| method | documents | hits / facts | answer log-probability | loss | loss, last 1,024 | CPU s |"
    return table(header, lines) if lines else ""


def head(name: str) -> str:
    """The generated part of docs/methods/NAME.md."""
    method = METHODS.get(name)
    body = (inspect.getdoc(method) or "").partition("\n\nAttributes:")[0]
    title, _, body = body.partition("\n\n")
    what = title.partition(": ")[2]  # "DPE: beyond the window, ..."
    drawn = "the `yarn-lambda` factors as its long factors" if name == "longrope" else "default parameters"
    rows = measured([name], LENGTH)
    found = f"SmolLM2-135M at 16,384 tokens ([settings](../measurements/README.md)):\n\n{rows}" if rows else ""
    return "\n\n".join(
        (
            f"# `{name}`",
            what[0].upper() + what[1:],
            f"![plan of {name}](img/{name}.png)",
            f"*Equivalent distance of the fastest, the middle and the slowest rotary pair of SmolLM2 (trained on 8,192 "
            f"tokens) at 16,384, with {drawn}; red is beyond the trained window. Right: the frequency table.*",
            "## Definition",
            body,
            "## Parameters",
            parameters(name),
            "## Measured",
            found or "Not measured on SmolLM2 yet.",
            "## Citation",
            f"```bibtex\n{method.bibtex}\n```",
            END,
        )
    )


def rules() -> str:
    """What every method fills in for SmolLM2 at LENGTH, and what it needs."""
    rows = []
    for name in [one["name"] for one in listed()] + list(PAIRS):
        method = example(name)
        filled, chosen = method.resolve(SPEC, LENGTH), method.why(SPEC, LENGTH)
        takes = "taken over" if filled.plan(SPEC, LENGTH).takes_attention else "model's own"
        reach = LENGTH if filled.length_dependent else filled.reach(SPEC)
        ruled = [
            f"{key} = {value_of(value)} ({reason})"
            for key, (value, reason) in chosen.items()
            if reason not in ("given", "default", "no gain", "no log-n scale")
        ]
        label = f"`{name}`" if "+" in name else f"[`{name}`](methods/{name}.md)"
        rows.append((label, takes, f"{reach:,}" if reach else "-", "; ".join(ruled) or "-"))
    return table("| method | attention | reach, tokens | filled in for 16k |", rows)


def fill(text: str, marker: str, content: str) -> str:
    """`text` with the place between <!-- marker --> and <!-- /marker --> filled."""
    before, start, rest = text.partition(f"<!-- {marker} -->")
    _, stop, after = rest.partition(f"<!-- /{marker} -->")
    if not (start and stop):
        raise SystemExit(f"the page has no place <!-- {marker} --> ... <!-- /{marker} -->")
    return f"{before}{start}\n\n{content}\n\n{stop}{after}"


def pages() -> dict[Path, str]:
    """Every page that this module fills, as it should be."""
    choosing = DOCS / "choosing.md"
    text = fill(choosing.read_text(), "rules", rules())
    text = fill(text, "measured 16k", measured(None, LENGTH))
    result = {choosing: fill(text, "measured 1k", measured(None, 1024))}
    for name in METHODS:
        page = DOCS / "methods" / f"{name}.md"
        _, end, prose = page.read_text().partition(END) if page.exists() else ("", "", "")
        if not end:
            raise SystemExit(f"{page.name} is missing or lacks its line; write the prose below a line {END}")
        result[page] = head(name) + prose
    return result
