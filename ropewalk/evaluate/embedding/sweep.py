"""A sweep of embedding models: search by search, and the queries of each are in the store before the next begins."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import EvaluationError, MethodError
from ropewalk.evaluate.embedding.bench import BM25, STOCK, EmbeddingBench, Search, Setup
from ropewalk.evaluate.embedding.cost import estimate
from ropewalk.evaluate.estimate import Estimate, known_seconds
from ropewalk.evaluate.row import Key
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import WAIT_SECONDS, Finished
from ropewalk.execution import Cell, run_cells
from ropewalk.methods import METHODS, parse
from ropewalk.methods.tables import TABLE_METHODS, parse_table
from ropewalk.registry import unknown

_WORK = "ropewalk.evaluate.embedding.sweep:work"


@dataclass(frozen=True)
class Step:
    """Where a sweep stands: how much of a search's documents is read; 1 when its queries are stored."""

    search: Search
    fraction: float


def list_searches(
    tasks: Sequence[str],
    methods: Sequence[str],
    lengths: Sequence[int],
    *,
    seeds: Sequence[int] = (0,),
    target_length: int | None = None,
    controls: bool = False,
) -> list[Search]:
    """Every task, length, seed and method, in the order of work: short lengths first, all methods of a set in a row.

    Args:
        target_length: tokens; None sets every method up for the largest of `lengths`.
        controls: add what a comparison is held against: the stock model, which cuts texts at its limit, and BM25.

    Raises:
        EvaluationError: nothing to do, or a target that is shorter than a length.
        MethodError: a method that neither position tables nor rotary models have, or a parameter that is not its own.
    """
    for method in methods:
        refuse_unknown(method)
    if not (tasks and methods and lengths and seeds):
        raise EvaluationError("nothing to evaluate; give one task, method, length and seed or more")
    target = max(lengths) if target_length is None else target_length
    if target < max(lengths):
        raise EvaluationError(
            f"methods set up for {target} tokens cannot be tested at {max(lengths)}; raise the target length to that"
        )
    asked = list(dict.fromkeys([*([STOCK] if controls else []), *methods]))
    labels = [(method, "") for method in asked] + ([(STOCK, BM25)] if controls else [])
    return [
        Search(task, length, method, control, target, seed)
        for length in sorted(set(lengths))
        for seed in seeds
        for task in dict.fromkeys(tasks)
        for method, control in labels
    ]


def refuse_unknown(method: str) -> None:
    """Raise MethodError for a method that neither position tables nor rotary models have."""
    name = method.partition(":")[0].strip()
    if name in TABLE_METHODS:
        parse_table(method)
    elif name.partition("+")[0].strip() in METHODS:
        parse(method)
    else:
        raise MethodError(unknown("method", name, [*TABLE_METHODS, *METHODS]))


def sweep(
    bench: EmbeddingBench,
    searches: Sequence[Search],
    store: Store,
    *,
    progress: Callable[[Step], None] | None = None,
    before: Callable[[Estimate], None] | None = None,
) -> Finished:
    """Measure what the store does not hold yet; what another live process measures is waited for.

    Killed at any moment, the same call goes on where it stopped: only the search in flight is lost.

    Args:
        before: called once before the first search, with what is left to do.

    Raises:
        EvaluationError: a set that cannot be built, embeddings that are no numbers, or a store that cannot be written.
        MethodError, ModelError, BackendError: from `ropewalk.extend`.
    """
    say = progress or (lambda step: None)
    for search in {(one.task, one.length): one for one in searches}.values():
        bench.set_of(search)  # what cannot be built is said now, not after hours
    keys = {search: bench.keys(search) for search in searches}
    if before:
        pending = [search for search in searches if not all(map(store.done, keys[search]))]
        before(estimate(bench, pending, known_seconds(store, bench.name)))
    done = Finished()
    waiting = list(searches)
    while waiting:
        held = []
        for search in waiting:
            if all(map(store.done, keys[search])):
                say(Step(search, 1.0))
            elif store.claim(claimed := next(key for key in keys[search] if not store.done(key))):
                say(Step(search, 0.0))
                try:
                    rows = bench.measure(search, lambda part, search=search: say(Step(search, 0.99 * part)))  # type: ignore[misc]
                except BaseException:
                    store.release(claimed)
                    raise
                done.measured += sum(store.append(row) for row in rows)
                say(Step(search, 1.0))
            else:
                held.append(search)
        if len(held) == len(waiting):
            time.sleep(WAIT_SECONDS)
        waiting = held
    done.keys = list(dict.fromkeys(key for search in searches for key in keys[search]))
    return done


def launch(
    source: str,
    searches: Sequence[Search],
    setup: Setup,
    store: Path,
    *,
    threads: int,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Finished:
    """Sweep in a process of its own, from a model's name.

    Args:
        source: of the model, for `ropewalk.models.embedding.loading.load_embedder`.
        on_event: called with {"search", "fraction"}, and once with {"estimate"}.

    Raises:
        RopewalkError: whatever stops it, with its message; what is stored is kept.
    """
    Store(store).close()  # an unusable file is an error before a model is loaded
    arguments = {
        "source": source,
        "searches": [search.to_json() for search in searches],
        "setup": asdict(setup),
        "store": str(store),
    }
    cell = Cell("the evaluation", _WORK, arguments)
    outcomes = run_cells(
        [cell], workers=1, threads=threads, on_event=lambda _, event: on_event(event) if on_event else None
    )
    value = outcomes[cell.key].value
    return Finished(keys=[Key(**json.loads(text)) for text in value["keys"]], measured=value["measured"])


def work(
    report: Callable[[dict[str, Any]], None],
    *,
    source: str,
    searches: list[dict[str, Any]],
    setup: dict[str, Any],
    store: str,
) -> dict[str, Any]:
    """In a process of its own (see `ropewalk.execution`): load the model and sweep."""
    from ropewalk.models.embedding.loading import load_embedder
    from ropewalk.models.loading import accelerator

    settings = Setup(**setup)
    model = load_embedder(source, pooling=settings.pooling, device=accelerator())
    with Store(store) as opened:
        done = sweep(
            EmbeddingBench(model, name=source, setup=settings),
            [Search(**search) for search in searches],
            opened,
            progress=lambda step: report({"search": step.search.to_json(), "fraction": step.fraction}),
            before=lambda left: report({"estimate": left.to_json()}),
        )
    return {"keys": [key.to_text() for key in done.keys], "measured": done.measured}
