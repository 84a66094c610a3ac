"""Ask an endpoint for all that the store does not hold yet: several requests at once, one document after another."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ropewalk.evaluate.endpoint.answer import EndpointError, Said
from ropewalk.evaluate.endpoint.client import Client
from ropewalk.evaluate.endpoint.cost import Spent
from ropewalk.evaluate.endpoint.prompts import Paper, Prompts
from ropewalk.evaluate.endpoint.sample import make_row
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.sweep import WAIT_SECONDS
from ropewalk.evaluate.unit import Unit


@dataclass(frozen=True)
class Standing:
    """Where a run stands after an answer, or a failure.

    Attributes:
        unit: that was asked about; `answered` of its `questions` have an answer.
        stored: samples in the store, of `samples`.
        spent: so far; it goes on changing.
    """

    unit: Unit
    answered: int
    questions: int
    stored: int
    samples: int
    spent: Spent


@dataclass(eq=False)
class _Open:
    """A document that is being asked about.

    Attributes:
        said: answers by question; `left`: questions not answered, failed or given up yet.
        began: when the first was asked.
    """

    paper: Paper
    left: int
    said: dict[int, Said] = field(default_factory=dict)
    failed: bool = False
    began: float = 0.0


_Queue = asyncio.Queue[tuple[_Open, int] | None]


class Asking:
    """One run; for one event loop, in the thread of the store.

    Documents are begun in the order of units, and a new one only when a request is free: what a stop loses is the
    documents in flight.

    Attributes:
        spent: so far; `stored`: samples in the store, `asked` of them stored by this run.
        failures: samples without a score, and why.
        stopped: why not all was asked, "" where all was.
        fatal: the error that makes more requests pointless.
    """

    def __init__(
        self,
        prompts: Prompts,
        units: Sequence[Unit],
        store: Store,
        *,
        tokenizer_name: str,
        progress: Callable[[Standing], None] | None,
    ) -> None:
        self.endpoint = prompts.endpoint
        self.spent = Spent(cost=self.endpoint.cost(0, 0))
        self.asked = 0
        self.failures: list[str] = []
        self.stopped = ""
        self.fatal: EndpointError | None = None
        self._prompts = prompts
        self._store = store
        self._tokenizer_name = tokenizer_name
        self._progress = progress
        self._open: list[_Open] = []
        self._settled = asyncio.Event()  # one of them was closed
        self._samples = len(units)
        self._waiting = [unit for unit in units if not store.done(prompts.key(unit))]
        self.stored = len(units) - len(self._waiting)

    async def run(self, client: Client) -> None:
        """Ask until all is stored or something stops it; claims that led to no sample are given back.

        Raises:
            EvaluationError: a document that cannot be built, or that calibration used, or a store that cannot be
                written.
        """
        # A document is built when the last question of the one before it waits to be asked.
        queue: _Queue = asyncio.Queue(maxsize=1)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.endpoint.concurrency):
                    group.create_task(self._work(client, queue))
                group.create_task(self._feed(queue))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for one in self._open:
                self._store.release(one.paper.key)

    @property
    def _failing(self) -> bool:
        return len(self.failures) >= self.endpoint.max_failures

    @property
    def _over(self) -> bool:
        return bool(self.stopped or self.fatal)

    async def _feed(self, queue: _Queue) -> None:
        while self._waiting and not self._over:
            held = []
            for unit in self._waiting:
                if self._over:
                    break
                key = self._prompts.key(unit)
                if self._store.claim(key):
                    await self._begin(unit, queue)
                elif self._store.done(key):
                    self.stored += 1
                else:
                    held.append(unit)  # another process asks it
            if len(held) == len(self._waiting):
                await asyncio.sleep(WAIT_SECONDS)
            self._waiting = held
        for _ in range(self.endpoint.concurrency):
            await queue.put(None)

    async def _begin(self, unit: Unit, queue: _Queue) -> None:
        # In a thread: long documents take seconds, and answers come in meanwhile.
        paper = await asyncio.to_thread(self._prompts.paper, unit)
        one = _Open(paper, len(paper.prompts))
        self._open.append(one)
        self._store.refuse_calibration([prompt_sha256(paper.document.ids)])
        most = self.endpoint.max_cost
        while most is not None and self._bound() > most:
            if self._open == [one]:
                self.stopped = self.stopped or f"the next sample could take the cost beyond {most:g}"
                self._close(one)
                return
            # Answers mostly cost less than they could: what is under way may leave room.
            self._settled.clear()
            await self._settled.wait()
        for index in range(len(paper.prompts)):
            await queue.put((one, index))

    def _bound(self) -> float:
        """What was spent, and the most that the questions still open can cost."""
        waiting = [
            self.endpoint.cost(prompt.tokens, prompt.new_tokens)
            for one in self._open
            for index, prompt in enumerate(one.paper.prompts)
            if index not in one.said
        ]
        return (self.spent.cost or 0.0) + sum(cost or 0.0 for cost in waiting)

    async def _work(self, client: Client, queue: _Queue) -> None:
        while (job := await queue.get()) is not None:
            one, index = job
            given_up = one.failed or self.fatal or (not one.began and self._failing)
            if not given_up:
                one.began = one.began or time.perf_counter()
                prompt = one.paper.prompts[index]
                try:
                    said = await client.ask(prompt.text, new_tokens=prompt.new_tokens, tokens=prompt.tokens)
                except EndpointError as error:
                    self._fail(one, error)
                else:
                    self._take(one, index, said)
            one.left -= 1
            if one.left == 0:
                self._close(one)
            if self._progress:
                asked, questions = len(one.said), len(one.paper.prompts)
                self._progress(Standing(one.paper.unit, asked, questions, self.stored, self._samples, self.spent))

    def _fail(self, one: _Open, error: EndpointError) -> None:
        self.spent.retries += error.retries
        if error.fatal:
            self.fatal = self.fatal or error
        if not one.failed:
            one.failed = True
            self.failures.append(f"{one.paper.key}: {error}")
        if self._failing:
            self.stopped = self.stopped or f"{len(self.failures)} samples failed"

    def _take(self, one: _Open, index: int, said: Said) -> None:
        prompt_tokens, completion_tokens = said.prompt_tokens, said.completion_tokens
        counted = prompt_tokens is None or completion_tokens is None
        if prompt_tokens is None:
            prompt_tokens = one.paper.prompts[index].tokens
        if completion_tokens is None:
            completion_tokens = self._prompts.count(said.text)
        one.said[index] = replace(
            said, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, counted=counted
        )
        self.spent.add(one.said[index], self.endpoint.cost(prompt_tokens, completion_tokens))

    def _close(self, one: _Open) -> None:
        """Store a document that has all its answers; give the claim on any other back."""
        if len(one.said) == len(one.paper.prompts):
            said = [one.said[index] for index in range(len(one.said))]
            seconds = time.perf_counter() - one.began
            self._store.append(
                make_row(self._prompts, one.paper, said, seconds=seconds, tokenizer_name=self._tokenizer_name)
            )
            self.stored += 1
            self.asked += 1
        else:
            self._store.release(one.paper.key)
        self._open.remove(one)
        self._settled.set()
