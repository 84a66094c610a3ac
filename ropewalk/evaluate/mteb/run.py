"""Run MTEB's tasks with extended models; every task is stored as soon as it is scored."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pytrec_eval
from mteb.abstasks import AbsTask
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import device_name, versions
from ropewalk.evaluate.embedding.bench import STOCK
from ropewalk.evaluate.embedding.identity import pipeline_sha256, read_limit, resolved, setting_sha256
from ropewalk.evaluate.embedding.pipeline import template_of
from ropewalk.evaluate.fingerprint import tokenizer_sha256
from ropewalk.evaluate.mteb.collection import load_tasks
from ropewalk.evaluate.mteb.parts import Part, measure_of, parts
from ropewalk.evaluate.peak import Peak
from ropewalk.evaluate.row import Key, Row
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import WAIT_SECONDS, Finished
from ropewalk.models.describe import OWN
from ropewalk.models.embedding.sentence import inner_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# MTEB rounds its scores to five places.
ROUNDED = 1e-5


@dataclass(frozen=True)
class Step:
    """Where a run stands: this task is begun with this method, or `done`."""

    task: str
    method: str
    done: bool


class Recorded:
    """A search model of MTEB that keeps what it found; the evaluator reads the same dictionary."""

    def __init__(self, model: SentenceTransformerEncoderWrapper) -> None:
        self._search = SearchEncoderWrapper(model)
        self.found: dict[str, dict[str, float]] = {}
        self.mteb_model_meta = model.mteb_model_meta

    def index(self, corpus: Any, **settings: Any) -> None:
        """As MTEB's own."""
        self._search.index(corpus, **settings)

    def search(self, queries: Any, **settings: Any) -> dict[str, dict[str, float]]:
        """As MTEB's own."""
        self.found = self._search.search(queries, **settings)
        return self.found


def run_mteb(
    model: "SentenceTransformer",
    *,
    tasks: Sequence[str | AbsTask],
    methods: Sequence[str],
    store: Store,
    target_length: int | None = None,
    folders: Sequence[str | Path] = (),
    batch_size: int = 1,
    backend: str = "auto",
    name: str = "",
    progress: Callable[[Step], None] | None = None,
) -> Finished:
    """Score methods on tasks of MTEB.

    Killed at any moment, the same call goes on where it stopped: only the task in flight is lost.

    Args:
        tasks: of MTEB, by name, by a benchmark's name, or made by hand.
        methods: in the method grammar; "none" is the stock model, which cuts texts at its limit.
        store: that rows go to, task "mteb/NAME": one for each query of a retrieval task whose main score is a mean over
            queries, else one for the whole.
        target_length: tokens; None: what each method reaches as it was given.
        folders: retrieval tasks of one's own, see `own_task`.
        batch_size: texts that are read at a time.
        name: of the model, as rows record it.
        progress: called with a Step.

    Raises:
        EvaluationError: an unknown task, data that are not here and cannot be fetched, or a score that is no number.
        MethodError, ModelError, BackendError: from `ropewalk.extend`.
    """
    if not (tasks or folders) or not methods or batch_size < 1:
        raise EvaluationError("nothing to evaluate; give one task and method or more, and a batch of 1 or more")
    say = progress or (lambda step: None)
    loaded = load_tasks([task for task in tasks if isinstance(task, str)], folders)
    loaded += [task for task in tasks if not isinstance(task, str)]
    runner = _Runner(model, store, target_length, batch_size, backend, name)
    for method in dict.fromkeys(methods):
        runner.identify(method)
    done = Finished()
    for task in loaded:
        fetched = not task.data_loaded
        for part in parts(task):
            for method in dict.fromkeys(methods):
                say(Step(task.metadata.name, method, False))
                runner.run(part, method, done)
                say(Step(task.metadata.name, method, True))
        if fetched:
            task.unload_data()
    return done


@dataclass
class _Runner:
    """One model and what all its tasks and methods have in common."""

    model: "SentenceTransformer"
    store: Store
    target: int | None
    batch_size: int
    backend: str
    name: str

    def __post_init__(self) -> None:
        self.network = inner_model(self.model)
        self.hashes = (pipeline_sha256(self.model), tokenizer_sha256(self.model.tokenizer))
        # method -> resolved, hash of what it does, backend, tokens that it reads
        self.known: dict[str, tuple[str, str, str, int]] = {}

    def identify(self, method: str) -> None:
        """Attach a method once, to learn what it is and that it fits."""
        with self._attached(method) as extension:
            self.known[method] = (
                resolved(self.model, extension),
                setting_sha256(extension),
                getattr(getattr(extension, "inner", None), "backend", OWN),
                read_limit(self.model) or 0,
            )

    @contextmanager
    def _attached(self, method: str) -> Iterator[Any]:
        if method == STOCK:
            yield None
            return
        with ropewalk.extend(
            self.model, method, target_length=self.target, backend=self.backend, verify=method not in self.known
        ) as extension:
            yield extension

    def run(self, part: Part, method: str, done: Finished) -> None:
        """Measure a part unless it is stored."""
        keys = self._keys(part, method)
        while missing := next((key for key in keys if not self.store.done(key)), None):
            if not self.store.claim(missing):  # another process measures it
                time.sleep(WAIT_SECONDS)
                continue
            try:
                rows = self._rows(part, method, keys)
            except BaseException:
                self.store.release(missing)
                raise
            done.measured += sum(self.store.append(row) for row in rows)
        done.keys += keys

    def _keys(self, part: Part, method: str) -> list[Key]:
        setting, does, backend, limit = self.known[method]
        return [
            Key(
                task=f"mteb/{part.task.metadata.name}",
                protocol=f"mteb {version('mteb')}, {part.split}, {part.subset}, {part.metric}",
                template=template_of(self.model),
                resolved=setting,
                control="",
                plan_sha256=does,
                length=self.target or limit,
                seed=0,
                document=index,
                model_sha256=self.hashes[0],
                tokenizer_sha256=self.hashes[1],
                corpus_sha256=part.data_sha256,
                dtype=str(self.network.dtype).removeprefix("torch."),
                backend=backend,
            )
            for index in range(len(part.queries) or 1)
        ]

    def _rows(self, part: Part, method: str, keys: Sequence[Key]) -> list[Row]:
        device = self.network.device
        with self._attached(method), Peak(device) as peak:
            wall, processor = time.perf_counter(), time.process_time()
            scores, others = self._score(part)
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        share = len(keys)
        return [
            Row(
                key=key,
                method=method,
                model=self.name,
                corpus=str(part.task.metadata.dataset["path"]),
                target_length=key.length,
                prompt_sha256=hashlib.sha256(f"{part.data_sha256} {index}".encode()).hexdigest(),
                metric=part.metric,
                scores=(score,),
                n=1,
                reached=self.known[method][3],  # texts are cut there; how many are shorter, MTEB does not tell
                seconds=seconds / share,
                prefill_seconds=0.0,  # MTEB does not tell reading from searching
                cpu_seconds=cpu_seconds / share,
                peak_bytes=peak.bytes,
                device=device_name(device),
                details={"query": part.queries[index] if part.queries else None, "whole": others},
                versions=versions() | {one: version(one) for one in ("mteb", "sentence-transformers")},
            )
            for index, (key, score) in enumerate(zip(keys, scores, strict=True))
        ]

    def _score(self, part: Part) -> tuple[list[float], dict[str, float]]:
        """The main score of each query, or of the whole, and what else MTEB measured of the whole.

        Raises:
            EvaluationError: queries whose scores do not average to MTEB's.
        """
        with warnings.catch_warnings():
            for kind in (DeprecationWarning, FutureWarning):  # of calls that it makes itself
                warnings.simplefilter("ignore", kind)
            wrapped = SentenceTransformerEncoderWrapper(self.model)
        judge = Recorded(wrapped) if part.queries else wrapped
        settings: Any = {"batch_size": self.batch_size, "show_progress_bar": False}
        measured: Any = part.task.evaluate(judge, part.split, subsets_to_run=[part.subset], encode_kwargs=settings)[
            part.subset
        ]
        whole = float(measured[part.metric])
        others = {
            metric: float(value)
            for metric, value in measured.items()
            if isinstance(value, int | float) and value == value and "nauc" not in metric
        }
        if not part.queries:
            return [whole], others
        assert isinstance(judge, Recorded)
        asked, given = measure_of(part.task) or ("", "")
        dataset: Any = part.task.dataset
        judged = dataset[part.subset][part.split]["relevant_docs"]
        by_query = pytrec_eval.RelevanceEvaluator(judged, {asked}).evaluate(judge.found)
        scores = [float(by_query[query][given]) for query in part.queries]
        if abs(fmean(scores) - whole) > ROUNDED:
            raise EvaluationError(
                f"{part.task.metadata.name}: its queries score {fmean(scores):.5f} and the whole {whole:.5f}; "
                "mteb scores it in a way of its own: run it with mteb.evaluate"
            )
        return scores, others
