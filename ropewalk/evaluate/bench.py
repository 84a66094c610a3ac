"""A loaded model that units are measured on, one after another."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from types import TracebackType

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import ropewalk
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.calibrated import refuse_calibrated
from ropewalk.evaluate.controlled import measure_controlled
from ropewalk.evaluate.controls import resolve, shortened
from ropewalk.evaluate.document import Document
from ropewalk.evaluate.fingerprint import model_sha256, plan_sha256, prompt_sha256, tokenizer_sha256
from ropewalk.evaluate.peak import Peak
from ropewalk.evaluate.row import Key, Row
from ropewalk.evaluate.suite import make_task
from ropewalk.evaluate.tasks import Task
from ropewalk.evaluate.unit import Setup, Unit, document_seed
from ropewalk.models.huggingface import Extension

# Called with the stage ("read", "ask") and the fraction of it that is done.
Report = Callable[[str, float], None]


class Bench:
    """A model, its tokenizer, and the method that is attached to it now.

    Use it as a context manager: on leaving, the model is the stock model again.

    Args:
        name: of the model, as rows record it.
        setup: what all units share.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str, setup: Setup) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.setup = setup
        self._model_sha256 = model_sha256(model)
        self._tokenizer_sha256 = tokenizer_sha256(tokenizer)
        self._corpus_sha256 = corpora.sha256(setup.corpus)
        self._tasks: dict[str, Task] = {}
        self._document: tuple[tuple[str, int, int], Document] | None = None
        self._extension: tuple[tuple[str, int], Extension] | None = None
        # (method, target length) -> resolved, hash of the plan, backend: known once it was attached.
        self._known: dict[tuple[str, int], tuple[str, str, str]] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def task(self, name: str) -> Task:
        """The task of a name, made once."""
        if name not in self._tasks:
            self._tasks[name] = make_task(name, self.setup)
        return self._tasks[name]

    def document(self, unit: Unit) -> Document:
        """The document of a unit; the last one is kept, because the next method reads the same."""
        seed = document_seed(unit.seed, unit.document)
        wanted = (unit.task, unit.length, seed)
        if self._document is None or self._document[0] != wanted:
            built = self.task(unit.task).build(self.tokenizer, unit.length, seed=seed, corpus=self.setup.corpus)
            self._document = (wanted, built)
        return self._document[1]

    @property
    def window(self) -> int:
        """Tokens that the model was trained on."""
        return (self._extension[1] if self._extension else self._attach("none", 0)).spec.pretrained_length

    def prepare(self, unit: Unit) -> None:
        """Build the document of a unit, and what its control makes of it.

        Raises:
            EvaluationError: it cannot be built, or the control does not apply to it.
        """
        document = self.document(unit)
        if unit.control:
            shortened(self.task(unit.task), self.tokenizer, document, unit.control, self.window)

    def key(self, unit: Unit) -> Key:
        """What the unit is stored under; attaches the method the first time.

        Raises:
            MethodError, ModelError, BackendError: from `ropewalk.extend`.
        """
        setting = (unit.method, unit.target_length)
        if setting not in self._known:
            extension = self._attach(*setting)
            self._known[setting] = (str(extension.method), plan_sha256(extension.plan), extension.backend)
        resolved, plan, backend = self._known[setting]
        task = self.task(unit.task)
        control = resolve(unit.control, self.window) if unit.control else ""
        return Key(
            task=unit.task,
            protocol=task.protocol,
            template=getattr(task, "template", ""),
            resolved=resolved,
            control=control,
            plan_sha256=plan,
            length=unit.length,
            seed=unit.seed,
            document=unit.document,
            model_sha256=self._model_sha256,
            tokenizer_sha256=self._tokenizer_sha256,
            corpus_sha256=task.own_text[1] if task.own_text else self._corpus_sha256,
            dtype=str(self.model.dtype).removeprefix("torch."),
            backend=backend,
        )

    def measure(self, unit: Unit, report: Report) -> Row:
        """Score a unit.

        Raises:
            EvaluationError: a length that is too short for the task, or a prompt that calibrated the method.
        """
        key = self.key(unit)
        task, document = self.task(unit.task), self.document(unit)
        extension = self._attach(unit.method, unit.target_length)
        refuse_calibrated(extension.method, prompt_sha256(document.ids))
        task.prepare(self.model, self.tokenizer, document, report=report)
        with Peak(self.model.device) as peak:
            wall, processor = time.perf_counter(), time.process_time()
            if unit.control:
                sample = measure_controlled(
                    self.model, self.tokenizer, task, document, unit.control, window=self.window, report=report
                )
            else:
                sample = task.measure(self.model, self.tokenizer, document, report=report)
            seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        return Row(
            key=key,
            method=unit.method,
            model=self.name,
            corpus=task.own_text[0] if task.own_text else self.setup.corpus,
            target_length=unit.target_length,
            prompt_sha256=prompt_sha256(document.ids),
            metric=task.metric,
            scores=sample.scores,
            n=sample.n,
            reached=max(sample.details["tokens"]) if unit.control else len(document.ids),
            seconds=seconds,
            prefill_seconds=sample.prefill_seconds,
            cpu_seconds=cpu_seconds,
            peak_bytes=peak.bytes,
            device=device_name(self.model.device),
            details={"pretrained_length": self.window, **sample.details},
            versions=versions(),
        )

    def detach(self) -> None:
        """Take the method off."""
        if self._extension:
            self._extension[1].remove()
            self._extension = None

    def _attach(self, method: str, target_length: int) -> Extension:
        wanted = (method, target_length)
        if self._extension is None or self._extension[0] != wanted:
            self.detach()
            # The self-test says the same of every method: it is run once.
            extension = ropewalk.extend(
                self.model,
                method,
                target_length=target_length or None,
                backend=self.setup.backend if method != "none" else "auto",
                verify=not self._known,
            )
            self._extension = (wanted, extension)
        return self._extension[1]


def versions() -> dict[str, str]:
    """Of ropewalk and of what it computes with."""
    return {
        "ropewalk": ropewalk.__version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """As rows record it: the GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
