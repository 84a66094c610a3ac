"""Run the harness's tasks with extended models; every document is stored as soon as it is scored."""

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import device_name, versions
from ropewalk.evaluate.fingerprint import model_sha256, plan_sha256, tokenizer_sha256
from ropewalk.evaluate.harness.ask import ask
from ropewalk.evaluate.harness.model import ExtendedLM
from ropewalk.evaluate.harness.tasks import SEED, Item, Prepared, load_tasks, prepare, seeded
from ropewalk.evaluate.peak import Peak
from ropewalk.evaluate.row import Key, Row
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import WAIT_SECONDS, Finished
from ropewalk.models.huggingface import read_spec


@dataclass(frozen=True)
class Step:
    """Where a run stands: `done` of `total` documents of a task have been asked with a method, or were stored."""

    task: str
    method: str
    done: int
    total: int


def run_harness(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: Sequence[str],
    methods: Sequence[str],
    store: Store,
    target_length: int | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    include_path: str | Path | None = None,
    metadata: dict[str, Any] | None = None,
    metric: str | None = None,
    chat_template: bool = False,
    batch_size: int = 1,
    backend: str = "auto",
    name: str | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Finished:
    """Score methods on tasks of lm-evaluation-harness, all on the same prompts.

    Prompts, answers and scores are those of `lm_eval.simple_evaluate` with the model extended and `max_length` set to
    `target_length`. Killed at any moment, the same call goes on where it stopped.

    Args:
        tasks: names, groups or tags of the harness, or of the files in `include_path`.
        methods: in the method grammar; "none" is the stock model.
        store: that rows go to, task "lm-eval/NAME".
        target_length: tokens; longer prompts lose their beginning, which `shortened` of a result counts. None: the
            window that the model was trained on.
        batch_size: documents that are asked at a time, and stored together.
        name: of the model, as rows record it; by default what its config says it was loaded from.
        limit, num_fewshot, metric, chat_template: see `prepare`.
        include_path, metadata: see `load_tasks`.
        backend: as for `ropewalk.extend`.
        progress: called often, with a Step.

    Returns:
        What was done; `collect` of `ropewalk.evaluate.sweep` gives its rows.

    Raises:
        EvaluationError: see `load_tasks`, `prepare` and `ask`.
        MethodError, ModelError, BackendError: from `ropewalk.extend`.
    """
    if not (tasks and methods) or batch_size < 1 or (limit is not None and limit < 1):
        raise EvaluationError("nothing to evaluate; give one task and method or more, a limit and a batch of 1 or more")
    target = target_length or read_spec(model).pretrained_length
    with _hushed():
        given = {
            "num_fewshot": num_fewshot,
            "include_path": include_path and str(include_path),
            "metadata": metadata,
            "metric": metric,
        }
        asked = {option: value for option, value in given.items() if value not in (None, {})}
        named = name or model.config._name_or_path
        runner = _Runner(model, tokenizer, store, target, batch_size, backend, named, asked)
        known = {"tokenizer": tokenizer.name_or_path} if tokenizer.name_or_path else {}
        loaded = load_tasks(tasks, include_path=include_path, metadata=known | (metadata or {}))
        for method in dict.fromkeys(methods):
            runner.identify(method)
        done = Finished()
        for task in loaded:
            prepared = prepare(
                task, tokenizer, limit=limit, num_fewshot=num_fewshot, metric=metric, chat_template=chat_template
            )
            for method in dict.fromkeys(methods):
                runner.run(prepared, method, done, progress or (lambda step: None))
        return done


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the harness's remarks: what matters of them (cut prompts) is counted instead."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass
class _Runner:
    """One model and what all its tasks and methods have in common."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    store: Store
    target: int
    batch_size: int
    backend: str
    name: str
    asked: dict[str, Any]  # what the caller chose about the tasks, for whoever measures them again

    def __post_init__(self) -> None:
        self.hashes = (model_sha256(self.model), tokenizer_sha256(self.tokenizer))
        # method -> resolved, hash of the plan, backend
        self.known: dict[str, tuple[str, str, str]] = {}

    def identify(self, method: str) -> None:
        """Attach a method once, to learn what it is and that it fits."""
        with ropewalk.extend(
            self.model, method, target_length=self.target, backend=self._backend(method), verify=not self.known
        ) as extension:
            self.known[method] = (str(extension.method), plan_sha256(extension.plan), extension.backend)

    def run(self, prepared: Prepared, method: str, done: Finished, say: Callable[[Step], None]) -> None:
        """Measure what the store does not hold yet; what another live process measures is waited for."""
        total = len(prepared.items)
        keys = {item.index: self._key(prepared, method, item) for item in prepared.items}
        queue = deque(item for item in prepared.items if not self.store.done(keys[item.index]))
        left = len(queue)
        say(Step(prepared.name, method, total - left, total))
        if queue:
            with self._attached(method) as lm:
                for batch in self._claimed(queue, keys):
                    for item, row in zip(batch, self._measure(lm, prepared, method, batch, keys), strict=True):
                        if math.isfinite(row.scores[0]):
                            self.store.append(row)
                            done.measured += 1
                        else:
                            self.store.release(keys[item.index])
                            done.failures.append(f"{row.key}: its {row.metric} is not a finite number")
                    left -= len(batch)
                    say(Step(prepared.name, method, total - left, total))
        done.keys += [key for key in keys.values() if self.store.done(key)]

    def _claimed(self, queue: deque[Item], keys: dict[int, Key]) -> Iterator[list[Item]]:
        """Batches that this process may measure, until all of the queue are measured by someone."""
        batch: list[Item] = []
        held: list[Item] = []
        while queue:
            item = queue.popleft()
            if self.store.claim(keys[item.index]):
                batch.append(item)
            elif not self.store.done(keys[item.index]):
                held.append(item)
            if len(batch) == self.batch_size or (batch and not queue):
                yield batch
                batch = []
            if held and not queue:
                time.sleep(WAIT_SECONDS)
                queue.extend(held)
                held = []

    @contextmanager
    def _attached(self, method: str) -> Iterator[ExtendedLM]:
        lm = ExtendedLM(
            self.model,
            method,
            self.target,
            self._backend(method),
            verify=False,  # `identify` has
            tokenizer=copy.deepcopy(self.tokenizer),  # the harness sets its padding token
            batch_size=self.batch_size,
        )
        try:
            yield lm
        finally:
            lm.extension.remove()

    def _backend(self, method: str) -> str:
        return "auto" if method == "none" else self.backend

    def _key(self, prepared: Prepared, method: str, item: Item) -> Key:
        resolved, plan, backend = self.known[method]
        return Key(
            task=prepared.name,
            protocol=prepared.protocol,
            template=prepared.template,
            resolved=resolved,
            control="",
            plan_sha256=plan,
            length=self.target,
            seed=SEED,
            document=item.index,
            model_sha256=self.hashes[0],
            tokenizer_sha256=self.hashes[1],
            corpus_sha256=prepared.corpus_sha256,
            dtype=str(self.model.dtype).removeprefix("torch."),
            backend=backend,
        )

    def _measure(
        self, lm: ExtendedLM, prepared: Prepared, method: str, batch: Sequence[Item], keys: dict[int, Key]
    ) -> list[Row]:
        """Ask the documents of a batch together; each gets an equal share of the time."""
        device = self.model.device
        with seeded(device), Peak(device) as peak:
            wall, processor = time.perf_counter(), time.process_time()
            outcomes = ask(lm, prepared, batch)
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        return [
            Row(
                key=keys[item.index],
                method=method,
                model=self.name,
                corpus=prepared.corpus,
                target_length=self.target,
                prompt_sha256=item.prompt_sha256,
                metric=one.metric,
                scores=(one.score,),
                n=one.n,
                reached=one.reached,
                seconds=seconds / len(batch),
                prefill_seconds=0.0,  # the harness does not tell reading from answering
                cpu_seconds=cpu_seconds / len(batch),
                peak_bytes=peak.bytes,
                device=device_name(device),
                details=one.details | {"asked": self.asked},
                versions=versions() | {"lm_eval": version("lm_eval")},
            )
            for item, one in zip(batch, outcomes, strict=True)
        ]
