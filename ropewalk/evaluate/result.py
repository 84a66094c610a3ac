"""One row of an evaluation: a score with everything that is needed to compare it, or to measure it again."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The score of one method on one task at one length.

    Attributes:
        task, protocol: what was asked, and the version of how.
        method: as given, or the name of a control; `resolved` has every parameter filled in.
        target_length: tokens that the method was set up for.
        length: tokens asked for; `reached`: tokens of the documents, without what is generated after them.
        metric, score: the mean of `scores`.
        n: what was counted: facts asked, tokens scored.
        ci95, interval: 95% confidence interval of the score, and how it was made (see `ropewalk.evaluate.statistics`).
        scores: per sample; `documents` has (seed, document) of each, so that methods can be compared in pairs.
        seconds: wall time of all documents; `prefill_seconds`: of reading them; `cpu_seconds`: processor time.
        peak_bytes: most memory held: of the CUDA device, or of the process where it ran only this; else None.
        backend, device, dtype, model, seeds, corpus, corpus_sha256: what it ran on.
        documents_sha256: of the prompts' hashes: equal only for the same text, facts, tokenizer and seeds.
        details: per document, whatever else the task measured.
        versions: of ropewalk, torch, transformers and Python.
    """

    task: str
    protocol: str
    method: str
    resolved: str
    length: int
    target_length: int
    reached: int
    metric: str
    score: float
    n: int
    ci95: tuple[float, float]
    interval: str
    scores: tuple[float, ...]
    documents: tuple[tuple[int, int], ...]
    seconds: float
    prefill_seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    backend: str
    device: str
    dtype: str
    model: str
    seeds: tuple[int, ...]
    corpus: str
    corpus_sha256: str
    documents_sha256: str
    details: tuple[dict[str, Any], ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields by name; tuples become lists once dumped."""
        return asdict(self)
