"""`ropewalk mteb TASK...`: tasks of MTEB with extended embedding models, into a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ropewalk.cli.options import MODEL_HELP, Backend, Json, MethodOptions, StoreOption, length_option
from ropewalk.cli.output import opened
from ropewalk.lengths import format_length

if TYPE_CHECKING:
    from rich.table import Table

    from ropewalk.evaluate.result import Result


def benchmark(
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP, show_default=False)],
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK...",
            help="Its tasks and benchmarks: LEMBQMSumRetrieval, LongEmbed, ...",
            show_default=False,
        ),
    ] = None,
    method: MethodOptions = ["none"],  # noqa: B006  (typer copies it)
    target_length: Annotated[
        int | None,
        length_option(
            "--target-length",
            "Tokens that every method is set up for; longer texts are cut.",
            show_default="what each method reaches",
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="A retrieval task of your own: corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them.",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            "--pooling",
            metavar="NAME",
            help="For a model that is no sentence-transformers folder: mean, cls or lasttoken.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="INTEGER", min=1, help="Texts that are read at a time.")
    ] = 1,
    backend: Backend = "auto",
    store: StoreOption = Path("runs/results.db"),
    as_json: Json = False,
) -> None:
    """Score methods on tasks of MTEB: LongEmbed's four real ones, or any other.

    Every query is stored with its score, a task at a time; the same command goes on where it was stopped. Data of
    MTEB's tasks come from the Hugging Face hub.
    """
    with opened(as_json) as out:
        from ropewalk.evaluate.embedding.sweep import refuse_unknown

        for one in method:
            refuse_unknown(one)

        from ropewalk.evaluate.mteb import Step, run_mteb
        from ropewalk.evaluate.row import results
        from ropewalk.evaluate.store import Store
        from ropewalk.evaluate.sweep import collect
        from ropewalk.models.embedding.loading import load_embedder
        from ropewalk.models.loading import accelerator

        def say(step: Step) -> None:
            if not step.done:
                out.notes.print(f"{step.task} {step.method}", markup=False)

        pipeline = load_embedder(model, pooling=pooling, device=accelerator())
        with Store(store) as samples:
            done = run_mteb(
                pipeline,
                tasks=tasks or [],
                folders=data or [],
                methods=method,
                store=samples,
                target_length=target_length,
                batch_size=batch_size,
                backend=backend,
                name=model,
                progress=say,
            )
            measured = results(collect(samples, done.keys))
        out.notes.print(f"{done.measured} of {len(done.keys)} samples measured now, the others before; in {store}")
        if not as_json:
            out.console.print(_table(measured))
        out.finish({"results": [one.to_json() for one in measured]})


def _table(results: "list[Result]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    numbers = ("length", "score", "n", "CPU s")
    for column in ("task", "length", "method", "metric", "score", "95% interval", "n", "CPU s"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for one in results:
        low, high = one.ci95
        scores = (one.metric, f"{one.score:.3f}", f"{low:.3f} to {high:.3f}", str(one.n), f"{one.cpu_seconds:.0f}")
        table.add_row(one.task, format_length(one.length), Text(one.method), *scores)
    return table
