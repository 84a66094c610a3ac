"""`ropewalk compare A B`: two methods on the same prompts of a store, in pairs."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.cli.options import Json, StoreOption, length_option
from ropewalk.cli.output import opened


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Method or control, as given or as resolved.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The one that is compared with it: B - A is shown.")],
    store: StoreOption = Path("runs/results.db"),
    target_length: Annotated[
        int | None,
        length_option("--target-length", "Only methods that were set up for this many tokens.", show_default="all"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="NAME",
            help="Compare another measure of each document: log_probability, loss_last, ...",
            show_default="the task's metric",
        ),
    ] = None,
    find: Annotated[
        float | None,
        typer.Option(
            "--find",
            metavar="NUMBER",
            help="Also say how many documents it takes to find a true difference of this size (power 0.8).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two methods over stored samples, task by task: differences in pairs, intervals, p adjusted by Holm."""
    with opened(as_json) as out:
        from ropewalk.evaluate.compare import ENDPOINT, render
        from ropewalk.evaluate.compare import compare as compare_rows
        from ropewalk.evaluate.row import scored_by
        from ropewalk.evaluate.store import Store

        with Store(store, create=False) as kept:
            rows = kept.rows()
            calibration = kept.calibration()
        # The stock model, its controls and endpoints are set up for nothing: theirs is that of the first run.
        rows = [
            row
            for row in rows
            if target_length in (None, row.target_length) or row.method == "none" or row.key.backend == ENDPOINT
        ]
        if by is not None:
            rows = scored_by(rows, by)
        made = compare_rows(rows, first, second, calibration=calibration, find=find)
        if not as_json:
            out.console.print(render(made))
        out.finish({"first": first, "second": second, "comparisons": [one.to_json() for one in made]})
