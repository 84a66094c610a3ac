"""The options that verbs share, written once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ropewalk.lengths import parse_length


def read_length(value: str | int) -> int:
    """A length from the command line; typer also passes the default, which is tokens already."""
    return value if isinstance(value, int) else parse_length(value)


def length_option(name: str, help: str, **more: Any) -> Any:
    """An option whose value is a length."""
    return typer.Option(name, parser=read_length, metavar="LENGTH", help=help, **more)


MODEL_HELP = "Hub id, local folder, .gguf file or package:NAME."
METHOD_HELP = "Method in the form name:key=value,... ; position and frequency methods are joined by a plus sign."

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP)]
MethodArgument = Annotated[str, typer.Argument(metavar="METHOD", help=METHOD_HELP, show_default=False)]
MethodOption = Annotated[str, typer.Option("--method", metavar="METHOD", help=METHOD_HELP)]
MethodOptions = Annotated[
    list[str],
    typer.Option("--method", metavar="METHOD", help=METHOD_HELP + " Repeat it to compare methods.", show_default=False),
]
Backend = Annotated[str, typer.Option("--backend", metavar="NAME", help="Attention backend; auto chooses and says so.")]
Seed = Annotated[int, typer.Option("--seed", metavar="INTEGER", help="Seed of every random choice.")]
StoreOption = Annotated[
    Path, typer.Option("--store", metavar="FILE", help="SQLite file that every sample is kept in; made if missing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")]
Length = Annotated[int, length_option("--length", "Tokens: 4096, 4k, 1m.", show_default=False)]
TargetLength = Annotated[
    int | None,
    length_option("--target-length", "Tokens that the method is set up for.", show_default="prompt and new tokens"),
]
PretrainedLength = Annotated[
    int | None,
    length_option(
        "--pretrained-length",
        "Window that the model was trained on, tokens.",
        show_default="what its configuration says",
    ),
]
Lengths = Annotated[
    str,
    typer.Option("--lengths", metavar="LENGTHS", help="Tokens, separated by commas: 4k,16k.", show_default=False),
]
Samples = Annotated[
    int, typer.Option("--samples", metavar="INTEGER", min=1, help="Documents for each task, length and seed.")
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Of the documents, separated by commas: 0,1,2.")]
Corpus = Annotated[
    str, typer.Option("--corpus", metavar="NAME", help="Text of the documents: a bundled one, or a .txt file.")
]

# Of what is trained.
OutputFolder = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FOLDER", help="Of the result and its checkpoints.", show_default=False),
]
Steps = Annotated[int, typer.Option("--steps", metavar="INTEGER", help="Optimizer steps.")]
Accumulate = Annotated[int, typer.Option("--accumulate", metavar="INTEGER", help="Forwards in one step.")]
Warmup = Annotated[int, typer.Option("--warmup", metavar="INTEGER", help="Steps of linear warm-up.")]
SaveEvery = Annotated[
    int, typer.Option("--save-every", metavar="INTEGER", help="Steps between checkpoints; the last two are kept.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on after the last checkpoint in the folder, with the same settings.")
]
