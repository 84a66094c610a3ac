"""Calibrate a model that is loaded."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.calibrate.dpe import Say, beside, require_request, run
from ropewalk.calibrate.keyfile import find_keys
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.trials import Executor, in_process
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.document import SEPARATOR, encode
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Setup
from ropewalk.models.huggingface import read_spec
from ropewalk.profile import Profile
from ropewalk.rotary import RotarySpec


def calibrate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: Request,
    out: str | Path,
    *,
    backend: str = "auto",
    say: Say = lambda line: None,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    began: float | None = None,
) -> Profile:
    """Calibrate `dpe` to a model, and save the profile at `out`.

    Beside it lie what makes a killed run go on: the trials (a store of evaluation: `ropewalk report` reads it), the
    record of the run, and the key dimensions where they were asked for.

    Args:
        say: called with lines for people.
        on_event: called with {"unit", "stage", "fraction"} while a document is read.
        began: `time.monotonic()` from which minutes of the budget count.

    Raises:
        EvaluationError: see `ropewalk.calibrate.dpe.run`; a corpus that is shorter than one document.
        ModelError, MethodError, BackendError: from `ropewalk.extend`.
    """
    began = time.monotonic() if began is None else began
    out = Path(out)
    spec = read_spec(model)
    require_request(request, spec, out)
    require_text(tokenizer, request)
    keys = keys_of(model, tokenizer, spec, request, out, say=say)
    setup = Setup(corpus=request.corpus, backend=backend)
    with Bench(model, tokenizer, name=request.model, setup=setup) as bench, Store(beside(out, "trials.db")) as store:
        return finish(request, spec, in_process(bench, store, on_event), out, keys=keys, say=say, began=began)


class Run(Protocol):
    """A search of `joint` or `factors`."""

    def __call__(
        self, request: Any, spec: RotarySpec, executor: Executor, out: Path, *, workers: int, say: Say, began: float
    ) -> Profile: ...


def search(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: Any,
    out: str | Path,
    *,
    backend: str = "auto",
    say: Say = lambda line: None,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    began: float | None = None,
) -> Profile:
    """Search on a model that is loaded (`joint.run`, `factors.run`), and save the profile at `out`.

    Beside it lie the trials and the record of the run, as for `calibrate`.
    """
    began = time.monotonic() if began is None else began
    out = Path(out)
    require_text(tokenizer, request)
    setup = Setup(corpus=request.corpus, backend=backend)
    with Bench(model, tokenizer, name=request.model, setup=setup) as bench, Store(beside(out, "trials.db")) as store:
        executor = in_process(bench, store, on_event)
        profile = run(request, read_spec(model), executor, out, workers=1, say=say, began=began)
    profile.save(out)
    return profile


def finish(
    request: Request,
    spec: RotarySpec,
    executor: Executor,
    out: Path,
    *,
    keys: Path | None,
    say: Say,
    began: float,
    workers: int = 1,
) -> Profile:
    """Run, and save the profile."""
    profile = run(request, spec, executor, out, keys=keys, workers=workers, say=say, began=began)
    profile.save(out)
    return profile


def keys_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: RotarySpec,
    request: Request,
    out: Path,
    *,
    say: Say,
) -> Path | None:
    """The profile with the key dimensions that a request wants, or None."""
    if request.top_k is None:
        return None
    path = beside(out, "keys.json")
    say(f"key dimensions: {request.key_documents} texts of {spec.pretrained_length} tokens")
    find_keys(
        model,
        tokenizer,
        spec,
        path,
        top_k=request.top_k,
        share=request.share,
        documents=request.key_documents,
        corpus=request.corpus,
        seed=request.seed,
    )
    return path


def require_text(tokenizer: PreTrainedTokenizerBase, request: Any) -> None:
    """Raise EvaluationError where the corpus is shorter than one document: it would say the same thing twice."""
    tokens = 0
    for paragraph in corpora.paragraphs(request.corpus):
        tokens += len(encode(tokenizer, paragraph + SEPARATOR))
        if tokens >= request.target_length:
            return
    raise EvaluationError(
        f"the text {request.corpus!r} has {tokens} tokens, a document of the target has {request.target_length}; "
        "give a longer text"
    )
