"""One stored sample: what a method scored on one document, with all that tells it from every other sample."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.result import Result
from ropewalk.evaluate.statistics import interval
from ropewalk.registry import unknown


@dataclass(frozen=True)
class Key:
    """What a sample is the score of: measuring the same key again is measuring the same thing again.

    Attributes:
        task, protocol, template: what was asked, the version of how, and the chat template around it ("" for none).
        resolved: the method with every parameter filled in.
        control: what shortened the prompt before the model read it, see `ropewalk.evaluate.controls`; "" for nothing.
        plan_sha256: of its plan: a profile that was made anew under the same name is another method.
        length: tokens asked for, before any control.
        seed, document: seed of the run, and index of the document in it.
        model_sha256, tokenizer_sha256: see `ropewalk.evaluate.fingerprint`.
        corpus_sha256: of the text that documents are made of: the corpus's, or that of the user's file of questions.
        dtype, backend: what computed it.
    """

    task: str
    protocol: str
    template: str
    resolved: str
    control: str
    plan_sha256: str
    length: int
    seed: int
    document: int
    model_sha256: str
    tokenizer_sha256: str
    corpus_sha256: str
    dtype: str
    backend: str

    def to_text(self) -> str:
        """Canonical JSON, equal for equal keys."""
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        what = f"{self.resolved} with {self.control}" if self.control else self.resolved
        return f"{self.task} at {self.length}, {what}, seed {self.seed}, document {self.document}"


@dataclass(frozen=True)
class Row:
    """A key with what was measured.

    Attributes:
        method, model, corpus: by the names that were given.
        target_length: tokens that the method was set up for.
        prompt_sha256: of the token ids that the task built, before any control shortens them: only samples that agree
            in it are compared in pairs.
        metric, scores: one value per sample of the document; finite.
        n: what was counted: facts asked, tokens scored.
        reached: tokens of the document.
        seconds, prefill_seconds: wall time of the document, and of reading it.
        cpu_seconds: processor time of this process meanwhile, all its threads: what a busy machine does not stretch.
        peak_bytes: most memory held, or None where it is not known for this document alone.
        device: that computed it: "cpu", or the GPU's name.
        details: whatever else the task measured; plain JSON.
        versions: of ropewalk, torch, transformers and Python.
    """

    key: Key
    method: str
    model: str
    corpus: str
    target_length: int
    prompt_sha256: str
    metric: str
    scores: tuple[float, ...]
    n: int
    reached: int
    seconds: float
    prefill_seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    device: str
    details: dict[str, Any]
    versions: dict[str, str]

    @property
    def label(self) -> str:
        """The name that tables and figures give it: its method's, or its control's."""
        return self.key.control or self.method


def scored_by(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows scored by another number of their details, one score a document: "log_probability", "loss_last", ...

    Raises:
        EvaluationError: no row has a number of this name.
    """

    def number(row: Row) -> bool:
        return isinstance(row.details.get(name), int | float)

    chosen = [replace(row, metric=name, scores=(float(row.details[name]),)) for row in rows if number(row)]
    if not chosen:
        known = sorted({key for row in rows for key, value in row.details.items() if isinstance(value, int | float)})
        raise EvaluationError(unknown("measure", name, known))
    return chosen


def results(rows: Sequence[Row]) -> list[Result]:
    """One Result for each cell (all that a key holds but seed and document, and the versions), in order of appearance.

    Names are those of its first row. `documents` of a Result holds (seed, document) of each score, and its
    `documents_sha256` is the hash of their prompt hashes.
    """
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cell = (replace(row.key, seed=0, document=0), row.metric, tuple(sorted(row.versions.items())))
        cells.setdefault(cell, []).append(row)
    return [_result(sorted(cell, key=lambda row: (row.key.seed, row.key.document))) for cell in cells.values()]


def _result(rows: list[Row]) -> Result:
    first, key = rows[0], rows[0].key
    scores = [score for row in rows for score in row.scores]
    owners = [(row.key.seed, row.key.document) for row in rows for _ in row.scores]
    ci = interval(scores, owners)
    peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None]
    return Result(
        task=key.task,
        protocol=key.protocol,
        method=first.label,
        resolved=key.resolved,
        length=key.length,
        target_length=first.target_length,
        reached=max(row.reached for row in rows),
        metric=first.metric,
        score=sum(scores) / len(scores),
        n=sum(row.n for row in rows),
        ci95=(ci.low, ci.high),
        interval=ci.made_by,
        scores=tuple(scores),
        documents=tuple(owners),
        seconds=sum(row.seconds for row in rows),
        prefill_seconds=sum(row.prefill_seconds for row in rows),
        cpu_seconds=sum(row.cpu_seconds for row in rows),
        peak_bytes=max(peaks, default=None),
        backend=key.backend,
        dtype=key.dtype,
        model=first.model,
        seeds=tuple(dict.fromkeys(row.key.seed for row in rows)),
        device=first.device,
        corpus=first.corpus,
        corpus_sha256=key.corpus_sha256,
        documents_sha256=hashlib.sha256(" ".join(row.prompt_sha256 for row in rows).encode()).hexdigest(),
        details=tuple(row.details for row in rows),
        versions=first.versions,
    )
