"""The harness's tasks, by name, with the prompts that all methods get."""

import difflib
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
import numpy as np
import torch
from datasets import config as datasets_config
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError

# The seeds of `lm_eval.simple_evaluate`: of few-shot examples, and of what tasks draw with `random`.
SEED = 1234
PYTHON_SEED = 0
# Of a task's settings: its data have a hash of their own, and names and places do not change a score.
_NO_SETTING = {"metadata", "dataset_path", "dataset_name", "dataset_kwargs", "task", "task_alias", "tag", "group"}


@dataclass(frozen=True)
class Item:
    """One document of a task.

    Attributes:
        index: in the task's data.
        content: as the task has it.
        requests: what the model is asked, few-shot examples and all.
        prompt_sha256: of them.
    """

    index: int
    content: Any
    requests: tuple[Instance, ...]
    prompt_sha256: str


@dataclass(frozen=True)
class Prepared:
    """A task of the harness, ready to be asked.

    Attributes:
        task: the harness's own.
        protocol: all that numbers depend on besides the data and the model.
        template: "chat", or "" for none.
        metric, kind: what is scored, and the filter of answers before it, by the harness's names.
        corpus, corpus_sha256: where the data come from, and a hash of all of them.
        items: documents, in order.
    """

    task: Task
    protocol: str
    template: str
    metric: str
    kind: str
    corpus: str
    corpus_sha256: str
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """As rows have it."""
        return f"lm-eval/{self.task.task_name}"


@contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Inside, random numbers start as in `lm_eval.simple_evaluate`; afterwards they go on as if nothing had been."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        random.seed(PYTHON_SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def load_tasks(
    names: Sequence[str], *, include_path: str | Path | None = None, metadata: dict[str, Any] | None = None
) -> list[Task]:
    """The tasks of names, groups and tags, each once, in their order.

    Args:
        include_path: folder with task files of the user's own, looked at before the harness's.
        metadata: what some tasks want to know, such as {"max_seq_lengths": "4k"} of BABILong.

    Raises:
        EvaluationError: an unknown name, data that are not here and cannot be fetched, a library that the task needs,
            or a task that gives no right numbers.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise EvaluationError(f"there is no folder {str(include_path)!r} with task files")
    manager = _manager(names, include_path, metadata or {})
    loaded: dict[str, Task] = {}
    for name in dict.fromkeys(names):
        _refuse_name(name, manager)
        with seeded(torch.device("cpu")):
            found = _load(name, manager)
        for task in found:
            _refuse_task(task)
            loaded[task.task_name] = task
    return list(loaded.values())


def _manager(
    names: Sequence[str], include_path: str | Path | None, metadata: dict[str, Any]
) -> "lm_eval.tasks.TaskManager":
    if include_path is not None:
        # Reading the harness's own 14,000 task files takes many seconds; a group may name any of them.
        own = lm_eval.tasks.TaskManager(include_path=str(include_path), include_defaults=False, metadata=metadata)
        if set(names) <= set(own.all_tasks) - set(own.all_groups):
            return own
    return lm_eval.tasks.TaskManager(include_path=str(include_path) if include_path else None, metadata=metadata)


def _refuse_name(name: str, manager: "lm_eval.tasks.TaskManager") -> None:
    if name not in manager.task_index:
        near = difflib.get_close_matches(name, manager.all_tasks, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`lm_eval ls tasks` lists its names"
        raise EvaluationError(f"lm-evaluation-harness has no task, group or tag {name!r}; {hint}")
    place = manager.task_index[name].yaml_path
    if place is not None and place.parent == Path(lm_eval.tasks.__file__).parent / "ruler":
        raise EvaluationError(
            f"{name} is the harness's copy of RULER, which scores question answering wrong (one of three references "
            f"found counts 0.333, not 1) and every length but its own as -1; run `ropewalk eval ruler`"
        )


def _load(name: str, manager: "lm_eval.tasks.TaskManager") -> list[Task]:
    try:
        return list(manager.load([name])["tasks"].values())
    except OSError as error:
        raise EvaluationError(
            f"the data of {name} cannot be read: {error}; they come from the Hugging Face hub: run this once where it "
            f"can be reached, and copy the caches from there ({datasets_config.HF_DATASETS_CACHE} and the hub's, or "
            f"name them in HF_DATASETS_CACHE and HF_HUB_CACHE); what is stored already is kept"
        ) from error
    except (ImportError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise EvaluationError(f"the task {name} cannot be loaded: {type(error).__name__}: {error}") from error


def _refuse_task(task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise EvaluationError(f"{task.task_name} runs code that the model writes; run it with lm_eval itself")
    if getattr(task, "MULTIMODAL", False):
        raise EvaluationError(f"{task.task_name} shows pictures or sound; ropewalk extends text models")


def prepare(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    metric: str | None = None,
    chat_template: bool = False,
) -> Prepared:
    """Build the prompts of a task, as `lm_eval.simple_evaluate` builds them.

    Args:
        limit: documents, the first ones; None: all.
        num_fewshot: worked examples in each prompt; as in the harness, a task that says 0 keeps 0.
        metric: "acc_norm", or with a filter "exact_match,flexible-extract"; by default the first that the task names.
        chat_template: put the tokenizer's around every prompt.

    Raises:
        EvaluationError: a chat template that the tokenizer does not have, or no documents.
    """
    if chat_template and not tokenizer.chat_template:
        raise EvaluationError("this tokenizer has no chat template; leave the option out")
    shots = task.get_config("num_fewshot")
    task.set_config(key="num_fewshot", value=num_fewshot if num_fewshot is not None and shots != 0 else shots or 0)
    task.set_fewshot_seed(seed=SEED)
    with seeded(torch.device("cpu")):
        task.build_all_requests(
            limit=limit,
            apply_chat_template=chat_template,
            fewshot_as_multiturn=chat_template,
            chat_template=_templater(tokenizer) if chat_template else None,
        )
        data = hashlib.sha256()
        for document in task.eval_docs:
            data.update(_canonical(document))
    filters = [one["name"] for one in task.get_config("filter_list") or [{"name": "none"}]]
    chosen, _, kind = (metric or next(iter(task.aggregation()))).partition(",")
    return Prepared(
        task=task,
        protocol=f"{_protocol(task)}, {chosen},{kind or filters[0]}",
        template="chat" if chat_template else "",
        metric=chosen,
        kind=kind or filters[0],
        corpus=":".join(filter(None, (task.get_config("dataset_path"), task.get_config("dataset_name")))),
        corpus_sha256=data.hexdigest(),
        items=_items(task),
    )


def _items(task: Task) -> tuple[Item, ...]:
    requests: dict[int, list[Instance]] = {}
    for request in task.instances:
        requests.setdefault(request.doc_id, []).append(request)
    return tuple(
        Item(
            index=index,
            content=asked[0].doc,
            requests=tuple(sorted(asked, key=lambda request: request.idx)),
            prompt_sha256=hashlib.sha256(_canonical([request.args for request in asked])).hexdigest(),
        )
        for index, asked in requests.items()
    )


def _protocol(task: Task) -> str:
    settings = {name: value for name, value in task.dump_config().items() if name not in _NO_SETTING}
    digest = hashlib.sha256(_canonical(settings)).hexdigest()[:8]
    shots = task.get_config("num_fewshot")
    return f"lm-eval {version('lm_eval')}, version {task.VERSION}, {shots}-shot, settings {digest}"


def _templater(tokenizer: PreTrainedTokenizerBase) -> Callable[..., str]:
    def apply(history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return tokenizer.apply_chat_template(
            history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    return apply


def _canonical(value: Any) -> bytes:
    # Functions and objects by name: how they print holds addresses.
    named = json.dumps(value, sort_keys=True, default=lambda one: getattr(one, "__qualname__", type(one).__name__))
    return named.encode()
