"""An embedding model that searches are measured on, one method after another."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.bench import device_name, versions
from ropewalk.evaluate.bm25 import bm25
from ropewalk.evaluate.embedding.identity import pipeline_sha256, read_limit, resolved, setting_sha256
from ropewalk.evaluate.embedding.pipeline import Report, prompts_of, similarities, template_of
from ropewalk.evaluate.embedding.ranking import accuracy_at_1, ndcg_at_10, ranks
from ropewalk.evaluate.embedding.sets import CANDIDATES, QUERIES, RETRIEVAL, RetrievalSet
from ropewalk.evaluate.fingerprint import tokenizer_sha256
from ropewalk.evaluate.peak import Peak
from ropewalk.evaluate.row import Key, Row
from ropewalk.methods.tables.tuned import TunedPositions
from ropewalk.models.describe import OWN
from ropewalk.models.embedding.sentence import inner_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STOCK = "none"
BM25 = "bm25"
METRIC = "accuracy@1"


@dataclass(frozen=True)
class Setup:
    """What all searches of a run have in common; plain JSON.

    Attributes:
        corpus: the text around needles, see `ropewalk.evaluate.corpus`.
        backend: as for `ropewalk.extend`.
        pooling: for a model that is no pipeline, see `ropewalk.models.embedding.loading.load_embedder`.
        queries, candidates: of each set.
    """

    corpus: str = corpora.DEFAULT
    backend: str = "auto"
    pooling: str | None = None
    queries: int = QUERIES
    candidates: int = CANDIDATES

    def __post_init__(self) -> None:
        """Raise EvaluationError for more queries than documents."""
        if not 1 <= self.queries <= self.candidates:
            raise EvaluationError(
                f"{self.queries} queries in {self.candidates} documents: every query has one of its own; ask for "
                "1 query or more, and no more than documents"
            )


@dataclass(frozen=True)
class Search:
    """A set of queries against its documents, under one method: what is measured, and stored, at a time.

    Attributes:
        task, method: by name; "none" is the stock model, which cuts texts at its limit.
        control: "", or "bm25": words instead of the model.
        length: of the documents, tokens.
        target_length: tokens that the method is set up for.
        seed: of the set.
    """

    task: str
    length: int
    method: str
    control: str
    target_length: int
    seed: int

    @property
    def label(self) -> str:
        """The method's name, or the control's."""
        return self.control or self.method

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


class EmbeddingBench:
    """A pipeline and what its searches share.

    Args:
        name: of the model, as rows record it.
    """

    def __init__(self, model: "SentenceTransformer", *, name: str, setup: Setup) -> None:
        self.model = model
        self.name = name
        self.setup = setup
        self.network = inner_model(model)
        self.limit = read_limit(model)
        self._hashes = (pipeline_sha256(model), tokenizer_sha256(model.tokenizer))
        self._template = template_of(model)
        self._set: tuple[tuple[str, int, int], RetrievalSet] | None = None
        # (method, target length) -> resolved, hash of what it does, backend: known once it was attached.
        self._known: dict[tuple[str, int], tuple[str, str, str, tuple[str, ...]]] = {}

    def set_of(self, search: Search) -> RetrievalSet:
        """The queries and documents of a search; the last ones are kept, because the next method reads the same."""
        wanted = (search.task, search.length, search.seed)
        if self._set is None or self._set[0] != wanted:
            built = RETRIEVAL.get(search.task).build(
                self.model.tokenizer,
                search.length,
                seed=search.seed,
                corpus=self.setup.corpus,
                queries=self.setup.queries,
                candidates=self.setup.candidates,
                prompt=prompts_of(self.model)[1],
            )
            self._set = (wanted, built)
        return self._set[1]

    def keys(self, search: Search) -> list[Key]:
        """What the queries of a search are stored under, in order; attaches the method the first time.

        Raises:
            EvaluationError: the text around the sentences is one that the method was trained on.
            MethodError, ModelError, BackendError: from `ropewalk.extend`.
        """
        task = RETRIEVAL.get(search.task)
        name, corpus_sha256 = task.text(self.setup.corpus)
        setting = (search.method, search.target_length)
        if setting not in self._known:
            with self.attached(search) as extension:
                used = None if extension is None else extension.method
                self._known[setting] = (
                    resolved(self.model, extension),
                    setting_sha256(extension),
                    getattr(getattr(extension, "inner", None), "backend", OWN),
                    used.corpora if isinstance(used, TunedPositions) else (),
                )
        method, does, backend, trained_on = self._known[setting]
        if corpus_sha256 in trained_on:
            raise EvaluationError(f"{method} was trained on {name!r}; test it on another text (--corpus)")
        return [
            Key(
                task=task.name,
                protocol=f"{task.protocol}, {self.setup.candidates} documents",
                template=self._template,
                resolved=method,
                control=search.control,
                plan_sha256=does,
                length=search.length,
                seed=search.seed,
                document=query,
                model_sha256=self._hashes[0],
                tokenizer_sha256=self._hashes[1],
                corpus_sha256=corpus_sha256,
                dtype=str(self.network.dtype).removeprefix("torch."),
                backend=backend,
            )
            for query in range(self.setup.queries)
        ]

    def measure(self, search: Search, report: Report) -> list[Row]:
        """One row for each query; the time is shared out evenly among them.

        Raises:
            EvaluationError: embeddings that are not finite, or a length too short for the task.
            MethodError, ModelError, BackendError: from `ropewalk.extend`.
        """
        keys, found = self.keys(search), self.set_of(search)
        device = self.network.device
        with self.attached(search) as extension, Peak(device) as peak:
            limit = read_limit(self.model) if extension is None else extension.target_length
            wall, processor = time.perf_counter(), time.process_time()
            if search.control == BM25:
                scores = bm25(found.queries, found.documents)
            else:
                scores = similarities(self.model, found.queries, found.documents, tokens=search.length, report=report)
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        share = len(keys)
        corpus = RETRIEVAL.get(search.task).text(self.setup.corpus)[0]
        return [
            Row(
                key=key,
                method=search.method,
                model=self.name,
                corpus=corpus,
                target_length=search.target_length,
                prompt_sha256=found.sha256(query),
                metric=METRIC,
                scores=(accuracy_at_1(rank),),
                n=1,
                reached=found.sizes[found.golds[query]],
                seconds=seconds / share,
                prefill_seconds=seconds / share,
                cpu_seconds=cpu_seconds / share,
                peak_bytes=peak.bytes,
                device=device_name(device),
                details={
                    "pretrained_length": self.limit,
                    "read": limit,
                    "ndcg@10": ndcg_at_10(rank),
                    "rank": rank,
                    "depth": round(found.depths[found.golds[query]], 4),
                },
                versions=versions() | {"sentence_transformers": version("sentence-transformers")},
            )
            for query, (key, rank) in enumerate(zip(keys, ranks(scores, found.golds), strict=True))
        ]

    @contextmanager
    def attached(self, search: Search) -> Iterator[Any]:
        """The method of a search on the model; None for the stock model and controls, which leave it as it is."""
        if search.method == STOCK:
            yield None
            return
        verify = (search.method, search.target_length) not in self._known  # once for each
        with ropewalk.extend(
            self.model, search.method, target_length=search.target_length, backend=self.setup.backend, verify=verify
        ) as extension:
            yield extension
