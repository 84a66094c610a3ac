"""`ropewalk show METHOD`: the parameters that a method takes on a model, and its plan drawn. Loads no weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import Json, Length, MethodArgument, ModelOption, PretrainedLength
from ropewalk.cli.output import opened
from ropewalk.errors import MethodError, RopewalkError
from ropewalk.lengths import format_length
from ropewalk.models.source import DEFAULT_MODEL

PLAN = ".json"
FIGURES = (".png", ".pdf", ".svg")

if TYPE_CHECKING:
    import numpy as np

    from ropewalk.rotary import RotarySpec


def show(
    method: MethodArgument,
    length: Length,
    model: ModelOption = DEFAULT_MODEL,
    pair: Annotated[
        int | None,
        typer.Option("--pair", metavar="INDEX", help="Rotary pair to draw.", show_default="slowest; figure: three"),
    ] = None,
    layer: Annotated[int, typer.Option("--layer", metavar="INDEX", help="Layer to draw.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Also save the plan (.json) or its picture (.png, .pdf, .svg)."
        ),
    ] = None,
    pretrained_length: PretrainedLength = None,
    as_json: Json = False,
) -> None:
    """Show what a method makes of a model: its parameters and why, and its plan drawn. Loads no weights."""
    from ropewalk import draw
    from ropewalk.methods import parse
    from ropewalk.methods.grammar import format_value
    from ropewalk.models.loading import load_config
    from ropewalk.models.spec import spec_from_config

    _require_file(output)
    with opened(as_json) as out:
        asked = parse(method)
        spec = spec_from_config(load_config(model), pretrained=pretrained_length)
        _require(spec, pair, layer)
        resolved = asked.resolve(spec, length)
        resolved.check_target(spec, length)
        plan = resolved.plan(spec, length)
        reasons = asked.why(spec, length)
        title = f"{asked} on {model}: {format_length(length)} tokens, trained window {spec.pretrained_length:,}"
        if not as_json:
            out.console.print(title, markup=False, soft_wrap=True)
            for name, (value, reason) in reasons.items():
                out.console.print(f"  {name} = {format_value(value)}: {reason}", markup=False, soft_wrap=True)
            drawing = draw.text(plan, spec, length, pair=pair, layer=layer)
            out.console.print("\n" + drawing, markup=False, soft_wrap=True)
        if output is not None:
            if output.suffix == PLAN:
                plan.save(output)
            else:
                pairs = None if pair is None else (pair,)
                draw.figure(plan, spec, length, path=output, pairs=pairs, layer=layer, title=title)
            out.notes.print(f"saved {output}", markup=False)
        arrays: dict[str, np.ndarray] = {}  # named by hash in the JSON; `--output plan.json` writes them
        out.finish(
            {
                "model": model,
                "length": length,
                "pretrained_length": spec.pretrained_length,
                "method": str(resolved),
                "why": {
                    name: {"value": format_value(value), "reason": reason} for name, (value, reason) in reasons.items()
                },
                "plan": plan.to_json(arrays),
            }
        )


def _require(spec: "RotarySpec", pair: int | None, layer: int) -> None:
    """Raise MethodError for a pair or layer that the model does not have."""
    wanted: dict[str, Any] = {"pair": (0 if pair is None else pair, spec.pairs), "layer": (layer, spec.num_layers)}
    for name, (index, count) in wanted.items():
        if not 0 <= index < count:
            raise MethodError(f"{name} {index} does not exist; this model has {name}s 0 to {count - 1}")


def _require_file(output: Path | None) -> None:
    """Raise RopewalkError for a file that cannot be written, before any work is done."""
    if output is None:
        return
    if output.suffix not in (PLAN, *FIGURES):
        raise RopewalkError(f"cannot save {str(output)!r}; its name must end in {', '.join((PLAN, *FIGURES))}")
    if not output.parent.is_dir():
        raise RopewalkError(f"cannot save {str(output)!r}: there is no folder {str(output.parent)!r}; make it first")
