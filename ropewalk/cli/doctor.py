"""`ropewalk doctor MODEL`: does the model come out equal through our seam, and which backends can run here?"""

from typing import Any

import typer

from ropewalk.cli.options import Json, ModelArgument
from ropewalk.cli.output import opened

UNEQUAL = 2


def diagnose(model: ModelArgument, as_json: Json = False) -> None:
    """Attach the method none, compare logits with the stock model, and list the backends. Exits with 2 if unequal."""
    from ropewalk.models import doctor
    from ropewalk.models.loading import load_model

    with opened(as_json) as out:
        network, _ = load_model(model)
        report = doctor.diagnose(network)
        if not as_json:
            out.console.print(_summary(model, report), markup=False, soft_wrap=True)
        out.finish({"source": model, **report})
    if not report["equal"]:
        raise typer.Exit(UNEQUAL)


def _summary(source: str, report: dict[str, Any]) -> str:
    layers = ", ".join(f"{count} {kind}" for kind, count in report["layers"].items() if count)
    lines = [
        f"{source}: {report['model']} in {report['dtype']}, trained on {report['pretrained_length']:,} tokens",
        f"  {report['pairs']} rotary pairs in {report['layout']} layout, layers: {layers}",
        f"  table of the checkpoint: {report['scaling'] or 'plain'}",
        f"  through the seam: {'equal to' if report['equal'] else 'NOT equal to'} the stock model, "
        f"largest logit difference {report['max_abs_logit_difference']:.3g}",
        "backends",
    ]
    for name, one in report["backends"].items():
        state = one["reason"] or f"can run, largest logit difference {one['max_abs_logit_difference']:.3g}"
        lines.append(f"  {name}: {state}")
    return "\n".join(lines)
