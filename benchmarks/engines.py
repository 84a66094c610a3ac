"""vLLM engines, each in a process of its own that waits while another one is measured."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # then a process is an engine, and its processor time the engine's
    "VLLM_LOGGING_LEVEL": "WARNING",
}
PAGES = 2**31  # bytes of keys and values


@dataclass(frozen=True)
class Reply:
    """What prompts at once took, and of each token written how probable the likeliest tokens were.

    Attributes:
        seconds, cpu_seconds: on the clock, and of the processor.
        written: tokens of each prompt's answer.
        logprobs: of each prompt, token by token, the logarithms by token id; empty where none were asked for.
    """

    seconds: float
    cpu_seconds: float
    written: list[list[int]]
    logprobs: list[list[dict[int, float]]]


class Engine:
    """An engine of `vllm.LLM` with these options, until the context is left; without a setting it is vLLM's own.

    Args:
        length: tokens that a request may have.
        entry: the `ropewalk` entry of the configuration, or None.
    """

    def __init__(self, model: str, *, length: int, entry: dict[str, Any] | None, **options: Any) -> None:
        os.environ.update(VARIABLES)
        # Stock vLLM on a CPU reads past its table of cos and sin beyond this limit.
        told = {"max_position_embeddings": length} if entry is None else {"ropewalk": entry, "model_max_length": length}
        options = {
            "max_model_len": length,
            "hf_overrides": told,
            "enforce_eager": True,
            "kv_cache_memory_bytes": PAGES,
            "seed": 0,
            **options,
        }
        context = multiprocessing.get_context("spawn")
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, model, options))
        self._process.start()
        theirs.close()
        self._channel.recv()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self._process.join()

    def ask(self, prompts: list[list[int]], new: int, *, likeliest: int = 0) -> Reply:
        """`new` greedy tokens after each prompt, all at once."""
        self._channel.send((prompts, new, likeliest))
        reply: Reply = self._channel.recv()
        return reply


def _serve(channel: Connection, model: str, options: dict[str, Any]) -> None:
    """Answer what comes through the channel until it is closed."""
    from vllm import LLM, SamplingParams

    engine = LLM(model, **options)
    channel.send("ready")
    while True:
        try:
            prompts, new, likeliest = channel.recv()
        except EOFError:
            return
        how = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, logprobs=likeliest or None)
        began, worked = time.perf_counter(), time.process_time()
        done = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], how, use_tqdm=False)
        took = time.perf_counter() - began, time.process_time() - worked
        outputs = [one.outputs[0] for one in done]
        found = [[{t: p.logprob for t, p in step.items()} for step in output.logprobs or []] for output in outputs]
        channel.send(Reply(*took, [list(output.token_ids) for output in outputs], found))
