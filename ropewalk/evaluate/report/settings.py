"""The settings of every group of rows, and the commands that measure it again."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from ropewalk.evaluate.report.data import Series, Study
from ropewalk.evaluate.row import Row
from ropewalk.evaluate.ruler.suite import QUESTIONS
from ropewalk.lengths import format_length

# What the stock model's attention is called: no name of a backend that could be asked for.
STOCK_BACKEND = "model's own"
NEW_STORE = "again.db"
# How rows tell that a server answered, or that lm-evaluation-harness asked.
ENDPOINT = "endpoint"
HARNESS = "lm_eval"
SERVER = ("api", "model", "settings", "url")
# Of its tasks, in the names that rows have.
HARNESS_PREFIX = "lm-eval/"
# Options of RULER's tasks and of LongPPL, with their defaults.
MODES = {"--template": "base", "--mode": "hardened", "--evaluator": ""}


@dataclass(frozen=True)
class Group:
    """Rows of one series that differ in task, length, seed and document only.

    Attributes:
        fields: (name, value) of all that they share.
        lengths: (asked, reached by the shortest document, by the longest), tokens.
        tasks: (name, protocol, template, metric).
        commands: that measure them again, into a new store.
    """

    series: Series
    fields: list[tuple[str, str]]
    lengths: list[tuple[int, int, int]]
    tasks: list[tuple[str, str, str, str]]
    commands: list[str]


def groups(study: Study) -> list[Group]:
    """The groups of a study, series by series."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for series in study.series:
        for row in (row for one, row in study.rows if one == series):
            found.setdefault((series, *_fields(row)), []).append(row)
    return [_group(key[0], rows) for key, rows in found.items()]


def commands(rows: list[Row]) -> list[str]:
    """What measures the rows of a group again: tasks and lengths with the same documents are one command.

    Returns:
        Empty for what an endpoint answered: the page shows its address and settings.
    """
    if rows[0].key.backend == ENDPOINT:
        return []
    make, options = (_harness, _harness_options) if HARNESS in rows[0].versions else (_eval, _eval_options)
    documents: dict[tuple[str, int], tuple[set[int], set[int]]] = {}
    modes: dict[str, tuple[str, ...]] = {}
    for row in rows:
        seeds, indices = documents.setdefault((row.key.task, row.key.length), (set(), set()))
        seeds.add(row.key.seed)
        indices.add(row.key.document)
        modes[row.key.task] = tuple(word for option in options(row) for word in option)
    lengths: dict[tuple[Any, ...], list[int]] = {}
    for (task, length), (seeds, indices) in sorted(documents.items(), key=lambda item: item[0][1]):
        lengths.setdefault((task, modes[task], tuple(sorted(seeds)), max(indices) + 1), []).append(length)
    tasks: dict[tuple[Any, ...], list[str]] = {}
    for (task, mode, seeds_of, samples), tested in lengths.items():
        tasks.setdefault((mode, seeds_of, samples, tuple(tested)), []).append(task)
    return [shlex.join([*make(rows[0], names, *key), "--store", NEW_STORE]) for key, names in tasks.items()]


def _eval(
    row: Row, tasks: list[str], mode: tuple[str, ...], seeds: tuple[int, ...], samples: int, lengths: tuple[int, ...]
) -> list[str]:
    words = ["ropewalk", "eval", *tasks, "--model", row.model, "--method", row.method]
    words += ["--lengths", ",".join(map(format_length, lengths)), "--samples", str(samples)]
    words += ["--seeds", ",".join(map(str, seeds))]
    words += ["--target-length", format_length(row.target_length), QUESTIONS.get(tasks[0], "--corpus"), row.corpus]
    words += [*mode, *(["--backend", row.key.backend] if row.key.backend != STOCK_BACKEND else [])]
    return [*words, "--controls" if row.key.control else "--no-controls"]


def _eval_options(row: Row) -> list[tuple[str, str]]:
    given = (row.key.template, str(row.details.get("mode", "")), str(row.details.get("evaluator") or ""))
    asked = zip(MODES.items(), given, strict=True)
    return [(option, value) for (option, default), value in asked if value not in ("", default)]


def _harness_options(row: Row) -> list[tuple[str, str]]:
    asked = row.details.get("asked", {})
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}
    return [("--" + name.replace("_", "-"), text) for name, text in sorted(texts.items())]


def _harness(
    row: Row, tasks: list[str], mode: tuple[str, ...], seeds: tuple[int, ...], samples: int, lengths: tuple[int, ...]
) -> list[str]:
    names = [task.removeprefix(HARNESS_PREFIX) for task in tasks]
    words = ["ropewalk", "harness", *names, "--model", row.model, "--method", row.method]
    words += ["--target-length", format_length(row.target_length), "--limit", str(samples)]
    words += ["--backend", row.key.backend] if row.key.backend != STOCK_BACKEND else []
    return [*words, *mode, *(["--chat-template"] if row.key.template else [])]


def _fields(row: Row) -> tuple[tuple[str, str], ...]:
    key, server = row.key, row.details.get(ENDPOINT, {})
    return (
        ("method", row.method),
        ("resolved", key.resolved),
        ("control", key.control or "none"),
        ("plan hash", key.plan_sha256),
        ("set up for", f"{row.target_length} tokens"),
        ("backend", key.backend),
        ("number type", key.dtype),
        ("device", row.device),
        ("model", row.model),
        ("model fingerprint", key.model_sha256),
        ("tokenizer hash", key.tokenizer_sha256),
        ("corpus", row.corpus),
        ("corpus hash", key.corpus_sha256),
        *((f"endpoint {name}", str(server[name])) for name in SERVER if name in server),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()))),
    )


def _group(series: Series, rows: list[Row]) -> Group:
    reached: dict[int, list[int]] = {}
    for row in rows:
        reached.setdefault(row.key.length, []).append(row.reached)
    seeds = sorted({row.key.seed for row in rows})
    tasks = dict.fromkeys((row.key.task, row.key.protocol, row.key.template, row.metric) for row in rows)
    return Group(
        series=series,
        fields=[*_fields(rows[0]), ("seeds", ", ".join(map(str, seeds))), ("documents", str(len(rows)))],
        lengths=[(length, min(found), max(found)) for length, found in sorted(reached.items())],
        tasks=list(tasks),
        commands=commands(rows),
    )
