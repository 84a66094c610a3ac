"""One row of an evaluation: a score with everything that is needed to compare it, or to measure it again."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """The score of one method on one task at one length.

    Attributes:
        task, protocol: what was asked, and the version of how.
        method: as given; `resolved` has every parameter filled in.
        length: tokens asked for; `reached`: tokens of the documents, without what is generated after them.
        metric, score: the mean of `scores`.
        n: what was counted: facts asked, tokens scored.
        ci95, interval: 95% confidence interval of the score, and how it was made (see `ropewalk.evaluate.statistics`).
        scores: per sample; `documents` has the document of each, so that methods can be compared in pairs.
        seconds: wall time of all documents; `prefill_seconds`: of reading them.
        peak_bytes: most memory held: of the CUDA device, or of the process where it ran only this; else None.
        backend, dtype, model, seed, corpus, corpus_sha256: what it ran on.
        documents_sha256: of the token ids: equal only for the same text, facts, tokenizer and seed.
        details: per document, whatever else the task measured.
        versions: of ropewalk, torch, transformers and Python.
    """

    task: str
    protocol: str
    method: str
    resolved: str
    length: int
    reached: int
    metric: str
    score: float
    n: int
    ci95: tuple[float, float]
    interval: str
    scores: tuple[float, ...]
    documents: tuple[int, ...]
    seconds: float
    prefill_seconds: float
    peak_bytes: int | None
    backend: str
    dtype: str
    model: str
    seed: int
    corpus: str
    corpus_sha256: str
    documents_sha256: str
    details: tuple[dict[str, Any], ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields by name; tuples become lists once dumped."""
        return asdict(self)
