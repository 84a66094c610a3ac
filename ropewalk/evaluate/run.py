"""Evaluate methods on one model: every task, length and method, all methods on the same documents."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import Document
from ropewalk.evaluate.result import Result
from ropewalk.evaluate.statistics import interval
from ropewalk.evaluate.tasks import TASKS, Sample, Task


@dataclass(frozen=True)
class Step:
    """Where an evaluation stands: `fraction` of a stage ("read", "ask") of document `document` of `documents`."""

    task: str
    method: str
    length: int
    document: int
    documents: int
    stage: str
    fraction: float


def document_seed(seed: int, index: int) -> int:
    """Seed of document `index` (below 1000) of a run, so that runs with different seeds share no document."""
    return seed * 1000 + index


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    lengths: Sequence[int],
    samples: int = 4,
    seed: int = 0,
    corpus: str = corpora.DEFAULT,
    backend: str = "auto",
    name: str | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Result]:
    """Score every method on every task at every length.

    Each method is attached with `ropewalk.extend(model, method, target_length=length)` and removed again.

    Args:
        tasks: names from `ropewalk.evaluate.tasks.TASKS`.
        methods: in the method grammar; "none" is the stock model.
        lengths: tokens.
        samples: documents for each task and length.
        seed: of the documents.
        corpus: their text, see `ropewalk.evaluate.corpus`.
        backend: as for `extend`.
        name: of the model, as results record it; by default what its config says it was loaded from.
        progress: called often, with a Step.

    Returns:
        One Result for each task, length and method, in this order of nesting.

    Raises:
        EvaluationError: an unknown task or corpus, a length too short for a task, or nothing to do.
        MethodError, ModelError, BackendError: from `extend`.
    """
    if samples < 1 or not (tasks and methods and lengths):
        raise EvaluationError("nothing to evaluate; give one task, method and length or more, and 1 or more samples")
    chosen = [TASKS.get(name) for name in tasks]
    # Built first: a document that cannot be is an error before hours of work, not after.
    seeds = [document_seed(seed, index) for index in range(samples)]
    cells = [
        (task, length, [task.build(tokenizer, length, seed=one, corpus=corpus) for one in seeds])
        for task in chosen
        for length in lengths
    ]
    results = [
        _cell(model, tokenizer, task, method, length, documents, seed=seed, backend=backend, progress=progress)
        for task, length, documents in cells
        for method in methods
    ]
    return results if name is None else [replace(result, model=name) for result in results]


def _cell(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    method: str,
    length: int,
    documents: list[Document],
    *,
    seed: int,
    backend: str,
    progress: Callable[[Step], None] | None,
) -> Result:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    began = time.perf_counter()
    measured: list[Sample] = []
    with ropewalk.extend(model, method, target_length=length, backend=backend) as extension:
        for index, document in enumerate(documents):

            def report(stage: str, fraction: float, index: int = index) -> None:
                if progress:
                    progress(Step(task.name, method, length, index, len(documents), stage, fraction))

            measured.append(task.measure(model, tokenizer, document, report=report))
        resolved, used = str(extension.method), extension.backend
    scores = [score for sample in measured for score in sample.scores]
    owners = [index for index, sample in enumerate(measured) for _ in sample.scores]
    ci = interval(scores, owners, seed=seed)
    return Result(
        task=task.name,
        protocol=task.protocol,
        method=method,
        resolved=resolved,
        length=length,
        reached=max(len(document.ids) for document in documents),
        metric=task.metric,
        score=sum(scores) / len(scores),
        n=sum(sample.n for sample in measured),
        ci95=(ci.low, ci.high),
        interval=ci.made_by,
        scores=tuple(scores),
        documents=tuple(owners),
        seconds=time.perf_counter() - began,
        prefill_seconds=sum(sample.prefill_seconds for sample in measured),
        peak_bytes=torch.cuda.max_memory_allocated(model.device) if cuda else None,
        backend=used,
        dtype=str(model.dtype).removeprefix("torch."),
        model=model.config._name_or_path,
        seed=seed,
        corpus=documents[0].corpus,
        corpus_sha256=corpora.sha256(documents[0].corpus),
        documents_sha256=hashlib.sha256(json.dumps([document.ids for document in documents]).encode()).hexdigest(),
        details=tuple(sample.details for sample in measured),
        versions={
            "ropewalk": ropewalk.__version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "python": platform.python_version(),
        },
    )
