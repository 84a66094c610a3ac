"""`ropewalk report STORE`: a page and figures of stored samples. Loads no model and no torch."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.cli.options import Json, length_option
from ropewalk.cli.output import opened
from ropewalk.errors import RopewalkError


def report(
    store: Annotated[
        Path,
        typer.Argument(
            metavar="STORE",
            help="SQLite file that `ropewalk eval` wrote, or rows.jsonl of a report.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where report.html, rows.jsonl and figures/ are written."
        ),
    ] = Path("runs/report"),
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="Only this task. Repeat it for several.", show_default="all"),
    ] = None,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="Of the page.")] = "ropewalk report",
    pretrained_length: Annotated[
        int | None,
        length_option(
            "--pretrained-length",
            "Window that the model was trained on, tokens; figures mark it.",
            show_default="what the samples tell",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained page of what a store holds, and its figures as PNG and SVG."""
    if output.exists() and not output.is_dir():
        raise RopewalkError(f"cannot write to {str(output)!r}: it is a file; name a folder with --output")
    with opened(as_json) as out:
        from ropewalk.evaluate.report import write_report
        from ropewalk.evaluate.rowfile import read_rows, write_rows
        from ropewalk.evaluate.store import Store

        if store.suffix == ".jsonl":
            rows, claimed, calibration = read_rows(store), [], {}
        else:
            with Store(store, create=False) as samples:
                rows, claimed, calibration = samples.rows(), samples.interrupted(), samples.calibration()
        chosen = [row for row in rows if not task or row.key.task in task]
        if task and not chosen:
            have = ", ".join(dict.fromkeys(row.key.task for row in rows)) or "no samples at all"
            raise RopewalkError(f"no samples of {', '.join(task)} in {str(store)!r}; there are: {have}")
        interrupted = [key for key in claimed if not task or key.task in task]
        written = write_report(
            chosen,
            output,
            title=title,
            source=str(store),
            interrupted=interrupted,
            calibration=calibration,
            pretrained_length=pretrained_length,
        )
        write_rows(output / "rows.jsonl", chosen)
        if not as_json:
            out.console.print(
                f"{written.page}: {written.rows} samples, {len(written.figures) // 2} figures", markup=False
            )
        out.finish(
            {
                "page": str(written.page),
                "figures": [str(figure) for figure in written.figures],
                "samples": written.rows,
                "interrupted": len(interrupted),
            }
        )
