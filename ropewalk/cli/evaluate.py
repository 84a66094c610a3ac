"""`ropewalk eval TASK...`: measure methods on one model, on the same prompts, into a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli import embedding
from ropewalk.cli.options import (
    Backend,
    Corpus,
    Json,
    Lengths,
    MethodOptions,
    ModelOption,
    Seeds,
    StoreOption,
    length_option,
)
from ropewalk.cli.output import opened
from ropewalk.errors import EvaluationError
from ropewalk.lengths import format_length, parse_length
from ropewalk.models.source import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from ropewalk.evaluate.effective import Reached
    from ropewalk.evaluate.result import Result


def measure(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...", help="Tasks or suites: needle, perplexity, ruler, longembed, ...", show_default=False
        ),
    ],
    lengths: Lengths,
    method: MethodOptions = ["none"],  # noqa: B006  (typer copies it)
    model: ModelOption = DEFAULT_MODEL,
    target_length: Annotated[
        int | None,
        length_option(
            "--target-length", "Tokens that every method is set up for.", show_default="the largest of --lengths"
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="INTEGER",
            min=1,
            help="Documents for each task, length and seed; of longembed: queries.",
            show_default="4; 50 of longembed",
        ),
    ] = None,
    seeds: Seeds = "0",
    corpus: Corpus = "sotu",
    template: Annotated[
        str, typer.Option("--template", metavar="NAME", help="RULER: base, chat, or a text with {task_template}.")
    ] = "base",
    mode: Annotated[
        str, typer.Option("--mode", metavar="NAME", help="RULER: hardened, or compat (NVIDIA's generator).")
    ] = "hardened",
    squad: Annotated[
        str | None, typer.Option("--squad", metavar="FILE", help="RULER's qa_1: SQuAD 2.0 dev set, JSON.")
    ] = None,
    hotpotqa: Annotated[
        str | None, typer.Option("--hotpotqa", metavar="FILE", help="RULER's qa_2: HotpotQA dev set, JSON.")
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            "--evaluator",
            metavar="MODEL",
            help="longppl: the model that finds key tokens.",
            show_default="the model itself, within its window",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            metavar="INTEGER",
            min=1,
            help="longembed: documents that queries are searched in.",
            show_default="100",
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            "--pooling",
            metavar="NAME",
            help="longembed, for a model that is no sentence-transformers folder: mean, cls or lasttoken.",
            show_default=False,
        ),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            help="Add the stock model, inside and beyond its window, and prompts cut down to its window by truncation, "
            "by BM25 and to the needle alone."
        ),
    ] = True,
    backend: Backend = "auto",
    store: StoreOption = Path("runs/results.db"),
    known: Annotated[
        Path | None,
        typer.Option("--known", metavar="FILE", help="rows.jsonl of a report, whose samples are taken into the store."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", metavar="INTEGER", min=1, help="Processes that share the work and the cores.")
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Measure on a Ray cluster's workers instead; local starts one."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure methods on one model: every task, length and method, all methods on the same documents.

    Every sample is stored as it comes; the same command goes on where it was stopped.
    """
    with opened(as_json) as out:
        tokens = [parse_length(length) for length in lengths.split(",")]
        if embedding.concerns(tasks):
            from ropewalk.evaluate.embedding import sets
            from ropewalk.evaluate.embedding.bench import Setup as Searching
            from ropewalk.evaluate.unit import read_seeds

            if ray is not None or workers > 1:
                raise EvaluationError("longembed runs in one process; leave --ray and --workers out")
            searching = Searching(
                corpus=corpus,
                backend=backend,
                pooling=pooling,
                queries=samples or min(sets.QUERIES, candidates or sets.CANDIDATES),
                candidates=candidates or sets.CANDIDATES,
            )
            embedding.measure(
                out,
                model,
                tasks,
                method,
                tokens,
                setup=searching,
                seeds=read_seeds(seeds),
                target_length=target_length,
                controls=controls,
                store=store,
                known=known,
            )
            return
        if candidates is not None or pooling is not None:
            raise EvaluationError("--candidates and --pooling are for longembed; leave them out")

        from rich.progress import Progress

        from ropewalk.evaluate.cluster import sweep_on_ray
        from ropewalk.evaluate.effective import effective_lengths
        from ropewalk.evaluate.launch import launch
        from ropewalk.evaluate.row import results
        from ropewalk.evaluate.rowfile import read_rows
        from ropewalk.evaluate.store import Store
        from ropewalk.evaluate.suite import expand
        from ropewalk.evaluate.sweep import collect
        from ropewalk.evaluate.unit import Setup, list_units, read_seeds
        from ropewalk.methods import parse
        from ropewalk.models.loading import load_config
        from ropewalk.models.spec import spec_from_config

        setup = Setup(
            corpus=corpus,
            backend=backend,
            template=template,
            mode=mode,
            squad=squad,
            hotpotqa=hotpotqa,
            evaluator=evaluator,
        )
        chosen = expand(tasks, setup)
        wanted = [parse(text) for text in method]
        spec = spec_from_config(load_config(model))
        units = list_units(
            chosen,
            method,
            tokens,
            samples=samples or 4,
            seeds=read_seeds(seeds),
            target_length=target_length,
            window=spec.pretrained_length if controls else None,
        )
        for one in wanted:  # refused now, not after the hours that the cells before it take
            one.resolve(spec, units[0].target_length).check_target(spec, units[0].target_length)
        if known is not None:
            rows = read_rows(known)
            with Store(store) as kept:
                taken = sum(kept.append(row) for row in rows)
            out.notes.print(
                f"{taken} of {len(rows)} samples of {known} taken into {store}", markup=False, soft_wrap=True
            )
        with Progress(console=out.notes) as bar:
            follow = Follower(bar, len(units), workers)
            if ray is None:
                done = launch(model, units, setup, store, workers=workers, on_event=follow)
            else:
                done = sweep_on_ray(model, units, setup, store, address=ray, workers=workers, on_event=follow)
        with Store(store) as opened_store:
            stored = collect(opened_store, done.keys)
        measured, reached = results(stored), effective_lengths(stored)
        out.notes.print(
            f"{done.measured} of {len(stored)} samples measured now, the others stored before; in {store}",
            markup=False,
            soft_wrap=True,
        )
        if not as_json:
            out.console.print(table(measured))
            if reached:
                out.console.print(reach_table(reached))
        out.finish(
            {
                "results": [result.to_json() for result in measured],
                "effective_lengths": [one.to_json() for one in reached],
            }
        )
        done.refuse_failures()


class Follower:
    """Shows where a sweep stands: a bar on a terminal, else a line when a unit is begun.

    Args:
        units: how many there are in all.
        workers: that share them.
    """

    def __init__(self, bar: "Progress", units: int, workers: int) -> None:
        self.bar = bar
        self.workers = workers
        self.line = bar.add_task("starting", total=units)
        self.begun: set[tuple[Any, ...]] = set()
        self.parts: dict[tuple[Any, ...], float] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        if "estimate" in event:
            for line in (*event["remarks"], self._estimate(event["estimate"])):
                self.bar.console.print(line, markup=False, soft_wrap=True)
            return
        unit, stage = event["unit"], event["stage"]
        name = tuple(unit.values())
        label = unit["control"] or unit["method"]
        title = f"{unit['task']} {format_length(unit['length'])} {label}, document {unit['document']}"
        # Asking takes a small part of the time of reading.
        self.parts[name] = {"attach": 0.0, "read": 0.9 * event["fraction"], "ask": 0.9 + 0.1 * event["fraction"]}.get(
            stage, 1.0
        )
        if stage == "read" and name not in self.begun:
            self.begun.add(name)
            if not self.bar.console.is_terminal:
                self.bar.console.print(title, markup=False)
        self.bar.update(self.line, description=f"{title} {stage}", completed=sum(self.parts.values()))

    def _estimate(self, left: dict[str, Any]) -> str:
        minutes = left["seconds"] / 60 / self.workers
        return (
            f"{left['samples']} samples to measure, {left['tokens']:,} tokens: about {minutes:.1f} minutes and "
            f"{self.workers * left['bytes'] / 2**30:.1f} GiB ({left['measured']} times known from the store)"
        )


def table(results: "list[Result]") -> "Table":
    """The scores of results, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    from ropewalk.evaluate.compare import ENOUGH

    few = [one for one in results if len(set(one.documents)) < ENOUGH]
    caption = f"fewer than {ENOUGH} documents: no difference can be shown beyond doubt" if few else None
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    numbers = ("length", "score", "n", "CPU s", "peak GiB")
    for column in ("task", "length", "method", "metric", "score", "95% interval", "n", "CPU s", "peak GiB", "backend"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for one in sorted(results, key=lambda one: (one.task, one.length)):
        low, high = one.ci95
        peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 2**30:.1f}"
        scores = (one.metric, f"{one.score:.3f}", f"{low:.3f} to {high:.3f}", str(one.n))
        costs = (f"{one.cpu_seconds:.0f}", peak, one.backend)
        table.add_row(one.task, format_length(one.length), Text(one.method), *scores, *costs)
    return table


def reach_table(reached: "list[Reached]") -> "Table":
    """How far each method reaches, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    from ropewalk.evaluate.report.suites import name_reach

    rules = "; ".join(dict.fromkeys(one.found.rule for one in reached))
    caption = f"effective length: the largest tested with a macro score above the threshold, {rules}"
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in ("suite", "method", "tasks", "effective length", "95% interval", "threshold"):
        table.add_column(column, justify="right" if column in ("tasks", "threshold") else "left")
    for one in reached:
        length, low, high = (name_reach(end, one.largest) for end in (one.found.length, one.found.low, one.found.high))
        numbers = (str(len(one.tasks)), length, f"{low} to {high}", f"{one.found.threshold:.1f}%")
        table.add_row(Text(one.suite), Text(one.method), *numbers)
    return table
