"""Evaluate an endpoint on the prompts that a local model reads, into the same store."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.asking import Asking, Standing
from ropewalk.evaluate.endpoint.client import Client
from ropewalk.evaluate.endpoint.cost import Estimate, Spent
from ropewalk.evaluate.endpoint.pace import Pace
from ropewalk.evaluate.endpoint.prompts import Prompts
from ropewalk.evaluate.endpoint.settings import Endpoint
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.suite import expand
from ropewalk.evaluate.sweep import Finished
from ropewalk.evaluate.unit import Setup, Unit, list_units


@dataclass
class Asked(Finished):
    """What a run left behind, `measured` being the samples that it asked.

    Attributes:
        spent: by this run.
        stopped: why not all was asked ("" where all was): the limit of the cost, or samples that failed.
    """

    spent: Spent = field(default_factory=Spent)
    stopped: str = ""


def evaluate_endpoint(
    endpoint: Endpoint,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokenizer_name: str,
    tasks: Sequence[str],
    lengths: Sequence[int],
    store: Store,
    samples: int = 4,
    seeds: Sequence[int] = (0,),
    setup: Setup = Setup(),  # noqa: B008  (frozen)
    on_estimate: Callable[[Estimate], None] | None = None,
    progress: Callable[[Standing], None] | None = None,
) -> Asked:
    """Ask an endpoint all questions of all documents that the store does not hold yet; each is stored as it is done.

    Killed at any moment, the same call goes on where it stopped. Not to be called where an event loop runs already.

    Args:
        tokenizer: that the documents are built with, best the served model's own; `tokenizer_name`: where it is from.
        tasks: names of tasks or suites whose answers are text.
        lengths: tokens, with the answer.
        samples: documents for each task, length and seed.
        setup: corpus and settings of tasks; template "chat" asks the chat API, any other that for completions.
        on_estimate: called before the first request; what it raises stops the run.
        progress: called after every answer.

    Raises:
        EvaluationError: a task that needs probabilities, a length too short for a task or too long for the tokens per
            minute, or an endpoint that cannot be reached, refuses the key, does not know the model or limits requests
            beyond all retries. What is stored stays. Samples that failed by themselves are `failures` of what returns.
    """
    units = list_units(expand(tasks, setup), [endpoint.name], lengths, samples=samples, seeds=seeds)
    prompts = Prompts(endpoint, tokenizer, setup)
    estimated = estimate(prompts, units, store)
    if on_estimate:
        on_estimate(estimated)
    asking = Asking(prompts, units, store, tokenizer_name=tokenizer_name, progress=progress)
    if estimated.requests:
        asyncio.run(_ask(asking, prompts))
    if asking.fatal:
        raise EvaluationError(
            f"{asking.fatal}; {asking.stored} of {len(units)} samples are stored; mend that, then run the same again"
        ) from asking.fatal
    keys = [key for key in map(prompts.key, units) if store.done(key)]
    return Asked(keys, asking.asked, asking.failures, asking.spent, asking.stopped)


def estimate(prompts: Prompts, units: Sequence[Unit], store: Store) -> Estimate:
    """What is still to be asked; errors of documents that cannot be built come here, before anything is paid for."""
    endpoint = prompts.endpoint
    waiting: dict[tuple[str, int], list[Unit]] = {}
    for unit in units:
        if not store.done(prompts.key(unit)):
            waiting.setdefault((unit.task, unit.length), []).append(unit)
    requests = prompt_tokens = new_tokens = 0
    for alike in waiting.values():
        paper = prompts.paper(alike[0])
        most = max(prompt.tokens + prompt.new_tokens for prompt in paper.prompts)
        if endpoint.tokens_per_minute is not None and most > endpoint.tokens_per_minute:
            raise EvaluationError(
                f"one request of {paper.unit.task} at {paper.unit.length} uses up to {most} tokens, more than the "
                f"{endpoint.tokens_per_minute} of a minute; allow more, or ask for a shorter length"
            )
        requests += len(paper.prompts) * len(alike)
        prompt_tokens += paper.tokens * len(alike)
        new_tokens += paper.new_tokens * len(alike)
    return Estimate(
        samples=len(units),
        stored=len(units) - sum(map(len, waiting.values())),
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=new_tokens,
        cost=endpoint.cost(prompt_tokens, new_tokens),
    )


async def _ask(asking: Asking, prompts: Prompts) -> None:
    endpoint = prompts.endpoint
    pace = Pace(endpoint.requests_per_minute, endpoint.tokens_per_minute)
    async with Client(endpoint, chat=prompts.chat, pace=pace) as client:
        await asking.run(client)
