"""One sample of a task: a pure function of task, tokenizer, length, seed, index, mode, template and texts."""

import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import encode
from ropewalk.evaluate.ruler.base import Body, Family, Setting
from ropewalk.evaluate.ruler.compat import search, shrink
from ropewalk.evaluate.ruler.fit import TooShortError, fit
from ropewalk.evaluate.ruler.questions import Questions
from ropewalk.evaluate.ruler.suite import FAMILIES, SYNTHETIC
from ropewalk.evaluate.ruler.template import Frame, frame
from ropewalk.registry import unknown

Mode = Literal["hardened", "compat"]
MODES: tuple[Mode, ...] = ("hardened", "compat")
# NVIDIA's default.
SEED = 42


def protocol(task: str, mode: Mode) -> str:
    """The version of how a task is asked; it changes whenever numbers stop being comparable."""
    if task in SYNTHETIC:
        return "ropewalk-qa/1"
    return "ruler-hardened/1" if mode == "hardened" else "ruler-nvidia-c3f5e3b/2"


@dataclass(frozen=True)
class RulerSample:
    """A prompt with its answer.

    Attributes:
        task, mode, length, seed, index, template: as asked for.
        prompt: text up to the answer; `answer_prefix`: how that begins; the model continues it.
        references: what the answer must hold.
        ids: tokens of prompt and prefix, after a start token where the tokenizer has one.
        tokens_to_generate: room for the answer; `ids` and it are at most `length`.
        depths: for each statement that carries the answer, the share of the prompt's characters before it.
        context: first and last + 1 character in `prompt` of the long part.
        golds: the statements of `context` that carry the answer; none where all of it does.
        search: what is asked for, without the wording; "" where the question names nothing.
    """

    task: str
    mode: Mode
    length: int
    seed: int
    index: int
    template: str
    prompt: str
    answer_prefix: str
    references: tuple[str, ...]
    ids: tuple[int, ...]
    tokens_to_generate: int
    depths: tuple[float, ...]
    context: tuple[int, int]
    golds: tuple[str, ...]
    search: str

    def score(self, prediction: str) -> float:
        """The task's metric for what a model said, 0 to 1."""
        return FAMILIES.get(self.task).metric(prediction, self.references)


@dataclass(frozen=True)
class Generator:
    """All samples of a task at one length; what they share is found once.

    Compat mode has NVIDIA's structure, wording, frozen permutations and sizes. Its random numbers are not those of
    NVIDIA's generator, which come from one stream through search and samples: here each sample has its own, so that it
    can be made alone. The start token counts here and not there.

    Attributes:
        task: a name of `ropewalk.evaluate.ruler.suite.FAMILIES`.
        length: tokens, with the answer.
        mode: "hardened" (every choice random in each sample, at least 99% of the room filled from 4096 tokens on) or
            "compat".
        template: "base", "chat" or a text, see `ropewalk.evaluate.ruler.template.frame`.
        corpus: running text for essays. RULER's own essays may not be passed on: for its exact haystack give the path
            of your copy as a .txt file.
        questions: for qa_1 and qa_2, see `ropewalk.evaluate.ruler.questions`.
    """

    task: str
    tokenizer: PreTrainedTokenizerBase
    length: int
    seed: int = SEED
    mode: Mode = "hardened"
    template: str = "base"
    corpus: str = corpora.DEFAULT
    questions: Questions | None = None

    def sample(self, index: int) -> RulerSample:
        """Sample `index`, 0 or more.

        Raises:
            EvaluationError: an unknown task, mode, template or corpus, no questions for a task that needs them, or a
                length too short, with the smallest one that this sample can have.
        """
        if self.mode not in MODES:
            raise EvaluationError(unknown("mode", self.mode, list(MODES)))
        try:
            body = self._body(index)
        except TooShortError as error:
            raise EvaluationError(
                f"{self.task} does not fit {self.length} tokens; ask for {self._smallest(index, error)} tokens or more"
            ) from None
        prompt, prefix = self._text(body)
        head = self._family.wording.task.partition("{context}")[0].format(**body.fields)
        begin = len(body.ahead) + len(self._frame.before) + len(body.shot) + len(head)
        return RulerSample(
            task=self.task,
            mode=self.mode,
            length=self.length,
            seed=self.seed,
            index=index,
            template=self.template,
            prompt=prompt,
            answer_prefix=prefix,
            references=body.references,
            ids=(*self._frame.start, *encode(self.tokenizer, prompt + prefix)),
            tokens_to_generate=self._family.wording.tokens_to_generate,
            depths=tuple(prompt.index(gold, begin) / len(prompt) for gold in body.golds),
            context=(begin, begin + len(body.context)),
            golds=body.golds,
            search=body.fields.get("query", ""),
        )

    @cached_property
    def _family(self) -> Family:
        return FAMILIES.get(self.task)

    @cached_property
    def _frame(self) -> Frame:
        return frame(self.tokenizer, self.template)

    @cached_property
    def _setting(self) -> Setting:
        return Setting(self.tokenizer, self.length, self.seed, self.corpus, self.questions, self._frame)

    @cached_property
    def _room(self) -> int:
        return self.length - self._family.wording.tokens_to_generate

    @cached_property
    def _units(self) -> int:
        """Compat mode: units of all samples. NVIDIA probes with the first question."""

        def probe(units: int) -> Body:
            # Frequent words grow with one vocabulary.
            drawn = "probe" if self._family.grows else f"probe {units}"
            return self._family.frozen(self._setting, self._rng(drawn), 0, units)

        return search(self._family, self.length, self._room, probe, self._count)

    def _body(self, index: int) -> Body:
        if self.mode == "hardened":
            draft = self._family.draft(self._setting, self._rng(index), index)
            return fit(draft, self.tokenizer, self._room, self._count)

        def draw(units: int) -> Body:
            return self._family.frozen(self._setting, self._rng(index), index, units)

        return shrink(self._family, self.length, self._room, self._units, draw, self._count)

    def _smallest(self, index: int, error: TooShortError) -> int:
        """The length of the shortest prompt of sample `index`; a task may change with the length, so it is tried."""
        length = error.tokens + self._family.wording.tokens_to_generate
        try:
            replace(self, length=length)._body(index)
        except TooShortError as longer:
            return replace(self, length=length)._smallest(index, longer)
        return length

    def _rng(self, what: object) -> random.Random:
        """Not of the length: the same things are hidden at every length."""
        return random.Random(f"{protocol(self.task, self.mode)} {self.task} {self.seed} {what}")

    def _text(self, body: Body) -> tuple[str, str]:
        """Prompt and answer prefix."""
        wording = self._family.wording
        task = wording.task.format(context=body.context, **body.fields)
        prompt = body.ahead + self._frame.before + body.shot + task + self._frame.after
        return prompt, wording.prefix.format(**body.fields)

    def _count(self, body: Body) -> int:
        return len(self._frame.start) + self._setting.count("".join(self._text(body)))


def sample(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    *,
    seed: int = SEED,
    index: int = 0,
    mode: Mode = "hardened",
    template: str = "base",
    corpus: str = corpora.DEFAULT,
    questions: Questions | None = None,
) -> RulerSample:
    """Sample `index` of a task; arguments and errors of `Generator`, which is faster for many samples."""
    return Generator(task, tokenizer, length, seed, mode, template, corpus, questions).sample(index)
