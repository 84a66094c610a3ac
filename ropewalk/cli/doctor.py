"""`ropewalk doctor MODEL`: does the model come out equal through our seam, and which backends can run here?"""

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
            verdict = "equal to the stock model" if report["equal"] else "NOT equal to the stock model"
            difference = report["max_abs_logit_difference"]
            out.console.print(f"{model}: {verdict}, largest logit difference {difference:g}", markup=False)
            for name, reason in report["backends"].items():
                out.console.print(f"  {name}: {reason or 'can run'}", markup=False, soft_wrap=True)
        out.finish({"model": model, **report})
    if not report["equal"]:
        raise typer.Exit(UNEQUAL)
