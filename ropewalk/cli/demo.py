"""`ropewalk demo`: the main job on a real model."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.cli.options import METHOD_HELP, Json, ModelOption, Seed, length_option
from ropewalk.cli.output import opened
from ropewalk.errors import RopewalkError
from ropewalk.evaluate.demo import METHODS, run
from ropewalk.models.source import DEFAULT_MODEL


def demonstrate(
    model: ModelOption = DEFAULT_MODEL,
    length: Annotated[int, length_option("--length", "Tokens of the document.")] = 16384,
    method: Annotated[
        list[str], typer.Option("--method", metavar="METHOD", help=METHOD_HELP + " Repeat it for more rows.")
    ] = list(METHODS),  # noqa: B006  (typer copies it)
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where demo.json and demo.png are written.")
    ] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """Hide ten facts in a text twice the trained window, and see which methods find them, at what cost."""
    if output.exists() and not output.is_dir():
        raise RopewalkError(f"cannot write to {str(output)!r}: it is a file; name a folder with --output")
    with opened(as_json) as out:
        out.finish(run(model=model, length=length, methods=method, seed=seed, output=output, console=out.console))
