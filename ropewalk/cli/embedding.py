"""LongEmbed's part of `ropewalk eval`: methods on one embedding model, on the same searches."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.cli.output import Output
from ropewalk.errors import EvaluationError
from ropewalk.lengths import format_length

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from ropewalk.evaluate.embedding.bench import Setup
    from ropewalk.evaluate.result import Result


def concerns(tasks: Sequence[str]) -> bool:
    """Whether tasks are those of embedding models.

    Raises:
        EvaluationError: some are and some are not.
    """
    found = [task.startswith("longembed") for task in tasks]
    if any(found) and not all(found):
        raise EvaluationError(
            f"{', '.join(tasks)}: some ask an embedding model and some a language model; run them one after the other"
        )
    return all(found)


def measure(
    out: Output,
    model: str,
    tasks: Sequence[str],
    methods: Sequence[str],
    lengths: Sequence[int],
    *,
    setup: "Setup",
    seeds: Sequence[int],
    target_length: int | None,
    controls: bool,
    store: Path,
    known: Path | None,
) -> None:
    """Measure, show and print; arguments as those of `ropewalk eval`."""
    from rich.progress import Progress

    from ropewalk.evaluate.embedding.sets import expand
    from ropewalk.evaluate.embedding.sweep import launch, list_searches
    from ropewalk.evaluate.launch import threads_of_each
    from ropewalk.evaluate.row import results, scored_by
    from ropewalk.evaluate.rowfile import read_rows
    from ropewalk.evaluate.store import Store
    from ropewalk.evaluate.sweep import collect

    searches = list_searches(
        expand(tasks), methods, lengths, seeds=seeds, target_length=target_length, controls=controls
    )
    if known is not None:
        with Store(store) as kept:
            taken = sum(kept.append(row) for row in read_rows(known))
        out.notes.print(f"{taken} samples of {known} taken into {store}", markup=False, soft_wrap=True)
    with Progress(console=out.notes) as bar:
        done = launch(model, searches, setup, store, threads=threads_of_each(1), on_event=_Follower(bar, len(searches)))
    with Store(store) as kept:
        rows = collect(kept, done.keys)
    measured, gains = results(rows), results(scored_by(rows, "ndcg@10"))
    out.notes.print(
        f"{done.measured} of {len(rows)} queries measured now, the others stored before; in {store}",
        markup=False,
        soft_wrap=True,
    )
    if not out.as_json:
        out.console.print(_table(measured, gains))
    out.finish({"results": [one.to_json() for one in (*measured, *gains)]})


class _Follower:
    """Shows where a sweep stands: a bar on a terminal, else a line when a search is begun."""

    def __init__(self, bar: "Progress", searches: int) -> None:
        self.bar = bar
        self.line = bar.add_task("starting", total=searches)
        self.parts: dict[tuple[Any, ...], float] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        if "estimate" in event:
            left = event["estimate"]
            self.bar.console.print(
                f"{left['samples']} queries to measure, {left['tokens']:,} tokens to read: about "
                f"{left['seconds'] / 60:.1f} minutes and {left['bytes'] / 2**30:.1f} GiB "
                f"({left['measured']} times known from the store)",
                markup=False,
                soft_wrap=True,
            )
            return
        search = event["search"]
        name = tuple(search.values())
        title = f"{search['task']} {format_length(search['length'])} {search['control'] or search['method']}"
        if name not in self.parts and event["fraction"] < 1 and not self.bar.console.is_terminal:
            self.bar.console.print(title, markup=False)
        self.parts[name] = event["fraction"]
        self.bar.update(self.line, description=title, completed=sum(self.parts.values()))


def _table(measured: "list[Result]", gains: "list[Result]") -> "Table":
    """Both metrics of every search, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    words = ("task", "method", "95% interval")
    for column in ("task", "length", "method", "accuracy@1", "95% interval", "nDCG@10", "queries", "CPU s", "peak GiB"):
        table.add_column(column, justify="left" if column in words else "right")
    for one, gain in zip(measured, gains, strict=True):  # of the same rows, by two measures
        low, high = one.ci95
        peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**30:.1f}"
        scores = (f"{one.score:.3f}", f"{low:.3f} to {high:.3f}", f"{gain.score:.3f}", str(one.n))
        table.add_row(one.task, format_length(one.length), Text(one.method), *scores, f"{one.cpu_seconds:.0f}", peak)
    return table
