"""`ropewalk recommend MODEL`: name a method for a length, by what was measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ropewalk.cli.options import Json, ModelArgument, StoreOption, length_option
from ropewalk.cli.output import opened
from ropewalk.lengths import format_length

if TYPE_CHECKING:
    from rich.table import Table

    from ropewalk.evaluate.recommend import Recommendation


def recommend(
    model: ModelArgument,
    target: Annotated[int, length_option("--target", "Tokens that are wanted.", show_default=False)],
    store: StoreOption = Path("runs/results.db"),
    as_json: Json = False,
) -> None:
    """Name a method for a model and a length, with the evidence: your store, and the measurements that are shipped."""
    with opened(as_json) as out:
        from ropewalk.errors import EvaluationError
        from ropewalk.evaluate.recommend import recommend as choose
        from ropewalk.evaluate.rowfile import shipped_rows
        from ropewalk.evaluate.store import Store
        from ropewalk.models.loading import load_config
        from ropewalk.models.spec import spec_from_config

        window = spec_from_config(load_config(model)).pretrained_length
        rows = [row for row in shipped_rows() if row.model == model]
        known = {row.key for row in rows}
        if store.exists():
            with Store(store, create=False) as kept:
                rows += [row for row in kept.rows(model=model) if row.key not in known]
        if not rows:
            raise EvaluationError(
                f"nothing was measured with {model}, neither in {str(store)!r} nor in what is shipped; run "
                f"`ropewalk eval needle --model {model} --lengths {target} --method none --method METHOD` "
                "first, or choose by docs/choosing.md"
            )
        made = choose(rows, target, window)
        if not as_json:
            out.console.print(f"{made.method}: {made.reason}", markup=False, soft_wrap=True)
            if made.cheaper:
                out.console.print(f"cheaper, and not told from it by these data: {', '.join(made.cheaper)}")
            for remark in made.remarks:
                out.console.print(f"note: {remark}", markup=False, soft_wrap=True)
            out.console.print(_table(made))
        out.finish({"model": model, "target_length": target, "pretrained_length": window, **made.to_json()})


def _table(made: "Recommendation") -> "Table":
    from rich.table import Table
    from rich.text import Text

    caption = "differences from the stock model on the same documents, with 95% intervals; short: within its window"
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for column in ("method", "set up for", "score", "documents", "against stock", "short", "CPU s"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for one in made.candidates:
        against, short = (
            Text("" if found is None else f"{found.mean:+.3f} [{found.interval.low:+.3f}, {found.interval.high:+.3f}]")
            for found in (one.against_stock, one.short)
        )
        score, cost = f"{one.score:.3f}", f"{one.cpu_seconds:.0f}"
        target = format_length(one.target_length)
        table.add_row(Text(one.method), target, score, str(one.documents), against, short, cost)
    return table
