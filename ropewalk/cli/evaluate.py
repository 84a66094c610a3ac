"""`ropewalk eval TASK...`: measure methods on one model, on the same prompts."""

from typing import TYPE_CHECKING, Annotated

import typer

from ropewalk.cli.options import Backend, Json, MethodOptions, ModelOption, Seed
from ropewalk.cli.output import opened
from ropewalk.lengths import format_length, parse_length
from ropewalk.models.source import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from ropewalk.evaluate.result import Result
    from ropewalk.evaluate.run import Step


def measure(
    tasks: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="needle, perplexity: one or both.", show_default=False)
    ],
    lengths: Annotated[
        str,
        typer.Option("--lengths", metavar="LENGTHS", help="Tokens, separated by commas: 4k,16k.", show_default=False),
    ],
    method: MethodOptions,
    model: ModelOption = DEFAULT_MODEL,
    samples: Annotated[
        int, typer.Option("--samples", metavar="INTEGER", min=1, help="Documents for each task and length.")
    ] = 4,
    seed: Seed = 0,
    backend: Backend = "auto",
    as_json: Json = False,
) -> None:
    """Measure methods on one model: every task, length and method, all methods on the same documents."""
    with opened(as_json) as out:
        tokens = [parse_length(length) for length in lengths.split(",")]

        from rich.progress import Progress

        from ropewalk.evaluate.run import evaluate
        from ropewalk.evaluate.tasks import TASKS
        from ropewalk.methods import parse
        from ropewalk.models.loading import load_config, load_model
        from ropewalk.models.spec import spec_from_config

        for task in tasks:
            TASKS.get(task)
        wanted = [parse(text) for text in method]
        spec = spec_from_config(load_config(model))
        for one in wanted:  # refused now, not after the hours that the cells before it take
            for length in tokens:
                one.resolve(spec, length).check_target(spec, length)
        network, tokenizer = load_model(model, target_length=max(tokens))
        with Progress(console=out.notes) as bar:
            follow = Follower(bar, len(tasks) * len(tokens) * len(method) * samples)
            results = evaluate(
                network,
                tokenizer,
                tasks=tasks,
                methods=method,
                lengths=tokens,
                samples=samples,
                seed=seed,
                backend=backend,
                name=model,
                progress=follow,
            )
        if not as_json:
            out.console.print(_table(results))
        out.finish({"results": [result.to_json() for result in results]})


class Follower:
    """Shows where an evaluation stands: a bar on a terminal, else a line when a document is begun.

    Args:
        documents: how many are read in all, each once per method.
    """

    def __init__(self, bar: "Progress", documents: int) -> None:
        self.bar = bar
        self.line = bar.add_task("starting", total=documents)
        self.begun: tuple[object, ...] | None = None
        self.documents = 0

    def __call__(self, step: "Step") -> None:
        now = (step.task, step.method, step.length, step.document)
        title = f"{step.task} {format_length(step.length)} {step.method} {step.document + 1}/{step.documents}"
        if now != self.begun:
            self.begun = now
            self.documents += 1
            if not self.bar.console.is_terminal:
                self.bar.console.print(title, markup=False)
        done = self.documents - 1 + (step.fraction if step.stage == "read" else 1.0)
        self.bar.update(self.line, description=f"{title} {step.stage}", completed=done)


def _table(results: "list[Result]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("task", "length", "method", "metric", "score", "95% interval", "n", "seconds", "backend"):
        table.add_column(column, justify="right" if column in ("length", "score", "n", "seconds") else "left")
    for one in results:
        low, high = one.ci95
        scores = (one.metric, f"{one.score:.3f}", f"{low:.3f} to {high:.3f}", str(one.n), f"{one.seconds:.0f}")
        table.add_row(one.task, format_length(one.length), Text(one.method), *scores, one.backend)
    return table
