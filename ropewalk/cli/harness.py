"""`ropewalk harness TASK...`: tasks of lm-evaluation-harness with extended models, into a store."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import Backend, Json, MethodOptions, ModelOption, StoreOption, length_option
from ropewalk.cli.output import opened
from ropewalk.errors import EvaluationError
from ropewalk.lengths import format_length
from ropewalk.models.source import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from ropewalk.evaluate.harness import Step
    from ropewalk.evaluate.result import Result


def harness(
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...", help="Its tasks, groups and tags: longbench2, babilong, ...", show_default=False
        ),
    ],
    method: MethodOptions = ["none"],  # noqa: B006  (typer copies it)
    model: ModelOption = DEFAULT_MODEL,
    target_length: Annotated[
        int | None,
        length_option(
            "--target-length",
            "Tokens that every method is set up for; longer prompts lose their beginning.",
            show_default="the window that the model was trained on",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="INTEGER", min=1, help="Documents of each task.", show_default="all"),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            "--num-fewshot",
            metavar="INTEGER",
            min=0,
            help="Worked examples in each prompt.",
            show_default="what the task says",
        ),
    ] = None,
    include_path: Annotated[
        Path | None,
        typer.Option("--include-path", metavar="FOLDER", help="Task files of your own.", show_default=False),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            "--metadata",
            metavar="JSON",
            help='What a task wants to know: {"max_seq_lengths": "4k"}.',
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="acc_norm, or with a filter exact_match,flexible-extract.",
            show_default="the first of each task",
        ),
    ] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put the tokenizer's chat template around every prompt.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="INTEGER", min=1, help="Documents that are asked at a time.")
    ] = 1,
    backend: Backend = "auto",
    store: StoreOption = Path("runs/results.db"),
    as_json: Json = False,
) -> None:
    """Score methods on tasks of lm-evaluation-harness, all on the same prompts.

    Every sample is stored as it comes; the same command goes on where it was stopped. Data of most tasks come from the
    Hugging Face hub.
    """
    with opened(as_json) as out:
        known = _read_metadata(metadata)

        from rich.progress import Progress

        from ropewalk.evaluate.harness import run_harness
        from ropewalk.evaluate.row import results
        from ropewalk.evaluate.store import Store
        from ropewalk.evaluate.sweep import collect
        from ropewalk.methods import parse
        from ropewalk.models.loading import accelerator, load_config, load_model
        from ropewalk.models.spec import spec_from_config

        spec = spec_from_config(load_config(model))
        target = target_length or spec.pretrained_length
        for one in map(parse, method):  # refused before the weights are read
            one.resolve(spec, target).check_target(spec, target)
        network, tokenizer = load_model(model, target_length=target, device=accelerator())
        with Store(store) as samples:
            with Progress(console=out.notes) as bar:
                done = run_harness(
                    network,
                    tokenizer,
                    tasks=tasks,
                    methods=method,
                    store=samples,
                    target_length=target,
                    limit=limit,
                    num_fewshot=num_fewshot,
                    include_path=include_path,
                    metadata=known,
                    metric=metric,
                    chat_template=chat_template,
                    batch_size=batch_size,
                    backend=backend,
                    name=model,
                    progress=_Follower(bar),
                )
            measured = results(collect(samples, done.keys))
        out.notes.print(f"{done.measured} of {len(done.keys)} samples measured now, the others before; in {store}")
        if not as_json:
            out.console.print(_table(measured))
        for remark in _remarks(measured):
            out.notes.print(remark, markup=False)
        out.finish({"results": [_plain(result) for result in measured]})
        done.refuse_failures()


def _read_metadata(text: str | None) -> dict[str, Any]:
    try:
        known = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise EvaluationError(f"--metadata {text!r} is no JSON ({error}); write an object") from error
    if not isinstance(known, dict):
        raise EvaluationError(f'--metadata {text!r} is no JSON object; write {{"name": value}}')
    return known


class _Follower:
    """A bar for each task and method on a terminal, else a line when it is begun."""

    def __init__(self, bar: "Progress") -> None:
        self.bar = bar
        self.lines: dict[tuple[str, str], Any] = {}

    def __call__(self, step: "Step") -> None:
        now = (step.task, step.method)
        if now not in self.lines:
            title = " ".join(now)
            self.lines[now] = self.bar.add_task(title, total=step.total)
            if not self.bar.console.is_terminal:
                self.bar.console.print(title, markup=False)
        self.bar.update(self.lines[now], completed=step.done)


def _table(results: "list[Result]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from ropewalk.evaluate.harness import shortened

    table = Table(box=None, pad_edge=False)
    for column in ("task", "length", "method", "metric", "score", "95% interval", "documents", "cut", "CPU s"):
        numbers = ("length", "score", "documents", "cut", "CPU s")
        table.add_column(column, justify="right" if column in numbers else "left")
    for one in results:
        low, high = one.ci95
        scores = (one.metric, f"{one.score:.3f}", f"{low:.3f} to {high:.3f}", str(len(one.details)))
        cut = str(shortened(one)[0])
        table.add_row(one.task, format_length(one.length), Text(one.method), *scores, cut, f"{one.cpu_seconds:.0f}")
    return table


def _remarks(results: "list[Result]") -> list[str]:
    """What shortened prompts: the harness itself would only warn of it between its other lines."""
    from ropewalk.evaluate.harness import shortened

    remarks: dict[str, None] = {}
    for one in results:
        (cut, windowed), total = shortened(one), len(one.details)
        if cut:
            remarks[
                f"{one.task}: {cut} of {total} prompts are longer than {one.length} tokens and lost their beginning; "
                "raise --target-length to keep it"
            ] = None
        if windowed:
            remarks[
                f"{one.task}: {windowed} of {total} texts are longer than {one.length} tokens and were read in windows "
                "that do not see one another; raise --target-length to read them whole"
            ] = None
    return list(remarks)


def _plain(result: "Result") -> dict[str, Any]:
    from ropewalk.evaluate.harness import shortened

    cut, windowed = shortened(result)
    return result.to_json() | {"cut": cut, "windowed": windowed}
