"""Compare two methods over stored samples: in pairs, task by task and length by length."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.needed import documents_needed
from ropewalk.evaluate.paired import Difference, holm, paired_difference
from ropewalk.evaluate.row import Row
from ropewalk.lengths import format_length

# Backend of rows that a server answered.
ENDPOINT = "endpoint"
# Documents: with fewer, two-sided p of McNemar's test and of sign flips is 2 / 2^5 at best, and a bootstrap of so few
# covers the mean less often than it says.
ENOUGH = 6


@dataclass(frozen=True)
class Comparison:
    """Two methods on one task at one length, on the documents that both have.

    Attributes:
        task, protocol, metric, length, model, dtype: what was compared.
        first, second: the methods as resolved.
        first_mean, second_mean: over the paired samples.
        difference: second minus first; None where no two samples pair up.
        holm_p: its p adjusted over the tasks of the same model, number type and length.
        needed: documents that a true difference of the wanted size takes; None where it was not asked for.
        warnings: what to know before it is believed.
    """

    task: str
    protocol: str
    metric: str
    length: int
    model: str
    dtype: str
    first: str
    second: str
    first_mean: float | None
    second_mean: float | None
    difference: Difference | None
    holm_p: float | None
    needed: int | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name; tuples become lists once dumped."""
        return asdict(self)


def compare(
    rows: Sequence[Row], first: str, second: str, *, calibration: Collection[str] = (), find: float | None = None
) -> list[Comparison]:
    """The paired table of two methods.

    Samples pair up when they agree in task, protocol, template, metric, length, model, tokenizer, corpus, number type,
    seed, document and, by hash, in the prompt. Backends may differ: the stock model has its own. Where one of the two
    is an endpoint, whose weights are not known, models and number types may differ too.

    Args:
        rows: from `Store.rows`.
        first, second: methods, as they were given or as resolved; differences are second minus first.
        calibration: hashes of prompts that calibration saw, from `Store.calibration`.
        find: a difference, in the unit of the scores: say how many documents it takes to find one of this size.

    Returns:
        One Comparison for each cell that has samples of both methods, in the order of `rows`.

    Raises:
        EvaluationError: no samples of a method, none that meet, or a name that stands for several settings.
    """
    if first == second:
        raise EvaluationError(f"{first!r} is compared with itself; name two methods")
    served = any(row.key.backend == ENDPOINT for name in (first, second) for row in rows if name in _names_of(row))
    cells = [_cells(rows, name, served) for name in (first, second)]
    shared = [cell for cell in cells[0] if cell in cells[1]]
    if not shared:
        raise EvaluationError(
            f"{first!r} and {second!r} have no task, length and model in common; evaluate both in one command"
        )
    made = [_comparison(cells[0][cell], cells[1][cell], frozenset(calibration), find) for cell in shared]
    families: dict[tuple[Any, ...], list[int]] = {}
    for index, (cell, comparison) in enumerate(zip(shared, made, strict=True)):
        if comparison.difference:
            families.setdefault(cell[1], []).append(index)
    for family in families.values():
        for index, p in zip(family, holm([_p(made[index]) for index in family]), strict=True):
            made[index] = replace(made[index], holm_p=p)
    return made


def render(comparisons: Sequence[Comparison]) -> Table:
    """The table for a terminal; warnings stand below it, numbered."""
    notes = list(dict.fromkeys(warning for comparison in comparisons for warning in comparison.warnings))
    metrics: dict[str, list[str]] = {}
    for comparison in comparisons:
        metrics.setdefault(comparison.metric, []).append(comparison.task)
    several = len({(comparison.model, comparison.dtype) for comparison in comparisons}) > 1
    caption = [
        f"A: {_names(comparison.first for comparison in comparisons)}",
        f"B: {_names(comparison.second for comparison in comparisons)}",
        *(f"{metric}: {', '.join(dict.fromkeys(tasks))}" for metric, tasks in metrics.items()),
        "n: documents (pairs of samples); B - A: with its 95% interval",
        "p: by itself (adjusted by Holm over the tasks of its length)",
        *(f"[{number}] {note}" for number, note in enumerate(notes, start=1)),
    ]
    # One space between columns: the numbers leave room for a task's name within 80 characters.
    table = Table(box=SIMPLE_HEAD, caption=escape("\n".join(caption)), caption_justify="left", padding=(0, 1, 0, 0))
    for title in (*(["model"] if several else []), "task"):
        table.add_column(title, overflow="fold")
    needed = any(comparison.needed for comparison in comparisons)
    for title in ("length", "n", "A", "B", "B - A", "p (Holm)", *(["needed"] if needed else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for comparison in comparisons:
        model = [escape(f"{comparison.model} {comparison.dtype}")] if several else []
        marks = "".join(f" [{notes.index(warning) + 1}]" for warning in comparison.warnings)
        task = escape(f"{comparison.task}{marks}")
        wanted = [str(comparison.needed or "")] if needed else []
        table.add_row(*model, task, format_length(comparison.length), *_numbers(comparison), *wanted)
    return table


def _names_of(row: Row) -> tuple[str, str]:
    return row.label, row.key.control or row.key.resolved


def _cells(rows: Sequence[Row], name: str, served: bool) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of a method by what must agree for a comparison: (cell, family), where a family shares Holm's p."""

    def setting(row: Row) -> tuple[str, str, str, int]:
        return row.key.resolved, row.key.control, row.key.model_sha256, row.key.length

    # One setting may have been asked for in two spellings: it is measured once, under the first.
    named = {setting(row) for row in rows if name in _names_of(row)}
    mine = [row for row in rows if setting(row) in named]
    if not mine:
        have = ", ".join(dict.fromkeys(row.label for row in rows)) or "no samples at all"
        raise EvaluationError(f"no samples of {name!r} here; there are: {have}")
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in mine:
        key = row.key
        computed = () if served else (key.model_sha256, key.dtype)
        family = (*computed, key.tokenizer_sha256, key.length)
        cell = (key.task, key.protocol, key.template, key.corpus_sha256, row.metric)
        cells.setdefault((cell, family), []).append(row)
    for found in cells.values():
        # Number type and weights can differ only where an endpoint is one of the two.
        settings = {
            (row.key.resolved, row.model, row.key.plan_sha256, row.key.backend, row.key.dtype, row.key.model_sha256)
            for row in found
        }
        if len(settings) > 1:
            which = "; ".join(
                f"{resolved} of {model} (plan {plan[:8]}, {backend}, {dtype}, weights {weights[:8]})"
                for resolved, model, plan, backend, dtype, weights in sorted(settings)
            )
            raise EvaluationError(
                f"{name!r} stands for {len(settings)} settings of {found[0].key.task} at {found[0].key.length}: "
                f"{which}; name one as resolved, or choose the rows of one plan_sha256 and backend"
            )
    return cells


def _comparison(first: list[Row], second: list[Row], calibration: frozenset[str], find: float | None) -> Comparison:
    ours, theirs = ({(row.key.seed, row.key.document): row for row in rows} for rows in (first, second))
    both = [(ours[place], theirs[place]) for place in ours if place in theirs]
    pairs = [(a, b) for a, b in both if a.prompt_sha256 == b.prompt_sha256 and len(a.scores) == len(b.scores)]
    before, after = ([score for pair in pairs for score in pair[side].scores] for side in (0, 1))
    places = [(a.key.seed, a.key.document) for a, _ in pairs for _ in a.scores]
    difference = paired_difference(before, after, places) if pairs else None
    warnings, needed = _warnings(len(ours), len(theirs), both, pairs, calibration), None
    if find is not None:
        try:
            needed = documents_needed([a.scores for a, _ in pairs], [b.scores for _, b in pairs], find)
        except EvaluationError as error:
            warnings.append(f"documents needed are not known: {error}")
    row = first[0]
    return Comparison(
        task=row.key.task,
        protocol=row.key.protocol,
        metric=row.metric,
        length=row.key.length,
        model=row.model,
        dtype=row.key.dtype,
        first=row.key.control or row.key.resolved,
        second=second[0].key.control or second[0].key.resolved,
        first_mean=sum(before) / len(before) if pairs else None,
        second_mean=sum(after) / len(after) if pairs else None,
        difference=difference,
        holm_p=None,
        needed=needed,
        warnings=tuple(warnings),
    )


def _warnings(
    ours: int,
    theirs: int,
    both: list[tuple[Row, Row]],
    pairs: list[tuple[Row, Row]],
    calibration: frozenset[str],
) -> list[str]:
    found = []
    if alone := ours + theirs - 2 * len(both):
        found.append(f"{alone} documents have samples of one method only and are left out")
    if strangers := sum(a.prompt_sha256 != b.prompt_sha256 for a, b in both):
        found.append(f"{strangers} of {len(both)} prompts differ by hash and are left out")
    if uneven := len(both) - strangers - len(pairs):
        found.append(f"{uneven} of {len(both)} documents have unequal numbers of scores and are left out")
    if seen := sum(a.prompt_sha256 in calibration for a, _ in pairs):
        found.append(f"{seen} of {len(pairs)} prompts were used to calibrate: these are not test scores")
    if len(pairs) == 1:
        found.append("a single document: its samples are taken as independent, and nothing is said of other documents")
    elif 1 < len(pairs) < ENOUGH:
        found.append(f"{len(pairs)} documents: no p of fewer than {ENOUGH} falls below 0.05")
    changed = {name for a, b in pairs for name, _ in a.versions.items() ^ b.versions.items()}
    if changed:
        found.append(f"the methods were run with different versions of {', '.join(sorted(changed))}")
    return found


def _p(comparison: Comparison) -> float:
    assert comparison.difference is not None
    return comparison.difference.p


def _names(methods: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(methods))


def _numbers(comparison: Comparison) -> list[str]:
    difference = comparison.difference
    if difference is None:
        return ["0", "", "", "", ""]
    documents, n, interval = difference.documents, difference.n, difference.interval
    return [
        f"{documents}" if documents == n else f"{documents} ({n})",
        f"{comparison.first_mean:.3f}",
        f"{comparison.second_mean:.3f}",
        escape(f"{difference.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"),
        f"{difference.p:.2g} ({comparison.holm_p:.2g})",
    ]
