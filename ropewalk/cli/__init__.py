"""The command line: one module per verb. Nothing heavy is imported before a verb runs."""

import errno
import os
import sys
from collections.abc import Sequence

import typer

from ropewalk.cli import (
    calibrate,
    compare,
    demo,
    doctor,
    endpoint,
    estimate,
    evaluate,
    export,
    generate,
    harness,
    methods,
    mteb,
    profiles,
    recommend,
    report,
    serve,
    show,
    train,
    tune_positions,
)
from ropewalk.errors import RopewalkError

BAD_INPUT = 2

app = typer.Typer(
    name="ropewalk",
    help="Extend the context window of a pretrained RoPE language model, and measure what that gains and costs.",
    epilog="Lengths are tokens: 4096, 4k or 1m. A method is written name:key=value,... and joined by a plus sign.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("methods")(methods.explain)
app.command("show")(show.show)
app.command("generate")(generate.generate)
app.command("eval")(evaluate.measure)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("recommend")(recommend.recommend)
app.command("endpoint")(endpoint.ask)
app.command("harness")(harness.harness)
app.command("mteb")(mteb.benchmark)
app.add_typer(calibrate.app, name="calibrate")
app.command("profiles")(profiles.profiles)
app.command("export")(export.export)
app.command("estimate")(estimate.estimate)
app.command("serve", context_settings={"allow_extra_args": True})(serve.serve)
app.command("train")(train.train)
app.command("tune-positions")(tune_positions.tune)
app.command("doctor")(doctor.diagnose)
app.command("demo")(demo.demonstrate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 after one line on stderr for bad input.

    Args:
        arguments: the words after `ropewalk`; those of the process when None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="ropewalk", standalone_mode=False)
    except RopewalkError as error:
        return _refuse(str(error))
    except typer.TyperException as error:
        return _refuse(error.format_message())
    except typer.Abort:
        return 130
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader has gone; keep the exit from writing to it
        return 1
    return code or 0


def _refuse(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT
