"""Evaluate methods on one model: every task, length and method, all methods on the same documents."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.result import Result
from ropewalk.evaluate.row import results
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.suite import expand
from ropewalk.evaluate.sweep import Step, collect, sweep
from ropewalk.evaluate.unit import Setup, list_units
from ropewalk.models.huggingface import read_spec


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    lengths: Sequence[int],
    samples: int = 4,
    seeds: Sequence[int] = (0,),
    target_length: int | None = None,
    controls: bool = False,
    setup: Setup = Setup(),  # noqa: B008  (frozen)
    store: Store | None = None,
    name: str | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Result]:
    """Score every method on every task at every length.

    Each method is attached with `ropewalk.extend(model, method, target_length=...)` and removed again.

    Args:
        tasks: names of tasks or suites, see `ropewalk.evaluate.suite`.
        methods: in the method grammar; "none" is the stock model.
        lengths: tokens.
        samples: documents for each task, length and seed.
        seeds: of the documents.
        target_length: tokens that every method is set up for; by default the largest of `lengths`.
        controls: add what a comparison is held against, see `list_units`.
        setup: corpus, backend and settings of tasks.
        store: where samples are kept as they come; those that it holds already are not measured again.
        name: of the model, as results record it; by default what its config says it was loaded from.
        progress: called often, with a Step.

    Returns:
        One Result for each task, length and method.

    Raises:
        EvaluationError: an unknown task or corpus, a length too short for a task, scores that are no numbers, or
            nothing to do. Samples in the store stay.
        MethodError, ModelError, BackendError: from `extend`.
    """
    chosen = expand(tasks, setup)
    window = read_spec(model).pretrained_length if controls else None
    units = list_units(
        chosen, methods, lengths, samples=samples, seeds=seeds, target_length=target_length, window=window
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Bench(model, tokenizer, name=name or model.config._name_or_path, setup=setup) as bench,
    ):
        kept = store or Store(Path(folder) / "store.db")
        try:
            done = sweep(bench, units, kept, progress=progress)
            done.refuse_failures()
            return results(collect(kept, done.keys))
        finally:
            if store is None:
                kept.close()
