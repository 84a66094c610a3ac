"""`ropewalk methods [NAME]`: what can be attached to a model, and with which parameters."""

import inspect
from dataclasses import MISSING
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import Json
from ropewalk.cli.output import opened

if TYPE_CHECKING:
    from rich.console import Console

    from ropewalk.methods.base import Method
    from ropewalk.methods.tables import EncoderMethod

CHANGES = {"position": "positions", "frequency": "frequencies", "both": "-", "table": "the position table"}
SHARED = ("logit_scale", "log_n", "stack")  # every method, or every frequency method, takes them: named once, below


def explain(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One method, in full.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the methods, or explain one of them."""
    from ropewalk.methods import METHODS
    from ropewalk.methods.tables import TABLE_METHODS

    with opened(as_json) as output:
        if name is not None:
            of_table = name in TABLE_METHODS and name not in METHODS
            method = TABLE_METHODS.get(name) if of_table else METHODS.get(name)
            if not as_json:
                _one(output.console, method)
            output.finish({**summary(method), "text": inspect.getdoc(method)})
            return
        methods, tables = listed(), listed_tables()
        if not as_json:
            _table(output.console, methods)
            _tables(output.console, tables)
        output.finish({"methods": methods, "position_tables": tables})


def listed() -> list[dict[str, Any]]:
    """The summary of every method: the baseline, then those that change positions, then those that change the table."""
    from ropewalk.methods import METHODS

    kinds = ("both", "position", "frequency")
    methods = [summary(METHODS.get(name)) for name in METHODS]
    return sorted(methods, key=lambda one: (kinds.index(one["kind"]), one["name"]))


def listed_tables() -> list[dict[str, Any]]:
    """The summary of every method for encoders with a position table, by name."""
    from ropewalk.methods.tables import TABLE_METHODS

    return [summary(TABLE_METHODS.get(name)) for name in sorted(TABLE_METHODS)]


def summary(method: "type[Method] | type[EncoderMethod]") -> dict[str, Any]:
    """Name, paper, needs, kind, parameters with defaults (None: filled in for the target) and one line of text."""
    first = (inspect.getdoc(method) or "").partition("\n")[0]  # "DPE: beyond the window, ..."
    return {
        "name": method.name,
        "paper": method.paper,
        "needs": method.needs,
        "kind": method.kind,
        "parameters": parameters(method),
        "summary": first.partition(": ")[2] or first,
    }


def parameters(method: "type[Method] | type[EncoderMethod]") -> dict[str, Any]:
    """What can be written behind the name of a method, with defaults in the words of the command line."""
    from ropewalk.methods.grammar import format_value, written

    result = {}
    for name, (field, _) in written(method).items():
        default = field.default
        result[name] = None if default is MISSING or default is None else format_value(default)
    return result


def spelled(given: dict[str, Any]) -> str:
    """Parameters as one line: the default where there is one, the bare name where the target length decides."""
    own = {key: value for key, value in given.items() if key not in SHARED}
    return ", ".join(key if value is None else f"{key}={value}" for key, value in own.items())


def _table(console: "Console", methods: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "changes", "parameters", "needs", "paper", ""):
        table.add_column(column)
    for one in methods:
        kind, given = one["kind"], spelled(one["parameters"])
        table.add_row(one["name"], CHANGES[kind], given, one["needs"], one["paper"], one["summary"])
    console.print(table)
    console.print("\nEvery method also takes logit_scale and log_n; those that change the table take stack.")
    console.print("What is left out is filled from the target length: see `ropewalk show METHOD --length N`.")


def _tables(console: "Console", methods: list[dict[str, Any]]) -> None:
    from rich.table import Table

    console.print("\nFor encoders with a position table (BERT, RoBERTa, MPNet), and their sentence-transformers:\n")
    table = Table(box=None, pad_edge=False)
    for column in ("name", "parameters", "needs", "paper", ""):
        table.add_column(column)
    for one in methods:
        table.add_row(one["name"], spelled(one["parameters"]), one["needs"], one["paper"], one["summary"])
    console.print(table)
    console.print("\nEvery one also takes log_n.")


def _one(console: "Console", method: "type[Method] | type[EncoderMethod]") -> None:
    from ropewalk.methods.grammar import type_name, written

    title = (method.name, method.paper, f"needs {method.needs}", f"changes {CHANGES[method.kind]}")
    console.print("   ".join(title) + "\n", markup=False)
    console.print(inspect.getdoc(method), markup=False)
    console.print("\nParameters")
    defaults = parameters(method)
    for name, (_, kind) in written(method).items():
        default = "optional" if defaults[name] is None else f"default {defaults[name]}"
        console.print(f"  {name}: {type_name(kind)}; {default}", markup=False)
