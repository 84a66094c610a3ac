"""vLLM engines, each in a process of its own, forked from one that has imported vLLM: two thirds of their start."""

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
NEW = 24  # tokens of an answer
LONGEST = 900  # seconds of one process, on a machine that does much else
OPTIONS = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 2**28,
    "seed": 0,
}
VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
IMPORTED = ("vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama")


@dataclass(frozen=True)
class Answer:
    """What was said to one prompt: greedy tokens and, by token, the logarithm of its probability.

    Attributes:
        cached: tokens of the prompt that the engine had already.
        margins: how far the second best token was behind; not known of an engine.
    """

    tokens: list[int]
    logprobs: list[float]
    cached: int = 0
    margins: list[float] = field(default_factory=list)


def run(
    folder: Path,
    rounds: list[list[list[int]]],
    *,
    new: int = NEW,
    environment: dict[str, str] | None = None,
    **options: Any,
) -> list[list[Answer]]:
    """Answers to prompts, round after round, each round all at once.

    Args:
        folder: of the model.
        rounds: token ids of each round's prompts.
        environment: variables of its own.
        options: of `vllm.LLM`.

    Raises:
        RuntimeError: the engine did not start or ended, with the end of what it wrote.
    """
    found: list[list[Answer]] = apart(ask, str(folder), rounds, new, options, environment=environment)
    return found


def ask(model: str, rounds: list[list[list[int]]], new: int, options: dict[str, Any]) -> list[list[Answer]]:
    """Build an engine in this process and ask it."""
    import torch._dynamo
    from vllm import LLM, SamplingParams

    options = OPTIONS | options
    torch._dynamo.config.disable = options["enforce_eager"]  # vLLM's sampler would compile for seconds even then
    engine = LLM(model, **options)
    sampling = SamplingParams(temperature=0, max_tokens=new, logprobs=1, detokenize=False, ignore_eos=True)
    answers = []
    for prompts in rounds:
        done = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        answers.append([_answer(one) for one in done])
    return answers


def _answer(done: Any) -> Answer:
    (output,) = done.outputs
    chosen = [step[token].logprob for token, step in zip(output.token_ids, output.logprobs, strict=True)]
    return Answer(list(output.token_ids), chosen, done.num_cached_tokens or 0)


def apart(function: Callable[..., Any], *args: Any, environment: dict[str, str] | None = None) -> Any:
    """What a function of some module returns in a process of its own.

    Raises:
        RuntimeError: it raised, or took too long; with the end of what the process wrote.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        receiver, sender = _context().Pipe(duplex=False)
        work = (sender, log.name, VARIABLES | (environment or {}), function, args)
        process = _context().Process(target=_work, args=work)
        process.start()
        sender.close()
        try:
            if not receiver.poll(LONGEST):
                raise RuntimeError(f"no answer after {LONGEST} s\n{_end(log.name)}")
            return receiver.recv()
        except EOFError as error:  # it ended and sent nothing
            raise RuntimeError(_end(log.name)) from error
        finally:
            _end_all(process.pid)
            process.join()


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _work(sender: Connection, log: str, variables: dict[str, str], function: Callable[..., Any], args: Any) -> None:
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(variables)
    gc.freeze()  # vLLM collects garbage eight times while it starts, among all that is imported
    sender.send(function(*args))


def _end(log: str) -> str:
    return Path(log).read_text()[-40_000:]  # vLLM's refusals list every model that it knows


def _end_all(number: int | None) -> None:
    """Kill a process and those that it started: what it was asked it has answered."""
    try:
        first = psutil.Process(number)
        every = [*first.children(recursive=True), first]
    except psutil.NoSuchProcess:
        return
    for process in every:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
