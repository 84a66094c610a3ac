"""The documents of units as prompts for an endpoint, and the keys that their samples are stored under."""

from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import Document, encode, start_tokens
from ropewalk.evaluate.endpoint.settings import Endpoint
from ropewalk.evaluate.fingerprint import tokenizer_sha256
from ropewalk.evaluate.row import Key
from ropewalk.evaluate.suite import make_task
from ropewalk.evaluate.tasks import Question, TextTask
from ropewalk.evaluate.unit import Setup, Unit, document_seed

# A hosted chat cannot go on with a turn that was begun for the assistant: the whole prompt, with the words that its
# answer is to begin with, is one user message in the server's own template, and a reply may repeat those words.
CHAT = "+user-message/1"


@dataclass(frozen=True)
class Prompt:
    """A question with all that stands before it.

    Attributes:
        text: without the start token, which servers add.
        tokens: of the local model's prompt, start token included; the server's own count may differ by a few.
        new_tokens: most that may be generated, extra ones included.
    """

    text: str
    tokens: int
    new_tokens: int
    question: Question


@dataclass(frozen=True)
class Paper:
    """A document with all its questions: one sample.

    Attributes:
        retokenized: the first prompt as one text has other tokens than those that a local model reads.
    """

    unit: Unit
    key: Key
    task: TextTask
    document: Document
    prompts: tuple[Prompt, ...]
    retokenized: bool

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return sum(prompt.tokens for prompt in self.prompts)

    @property
    def new_tokens(self) -> int:
        """The most that all answers have."""
        return sum(prompt.new_tokens for prompt in self.prompts)


class Prompts:
    """Makes papers; the same documents, by hash, as a local model reads.

    Template "chat" sends each prompt as one user message; "base" and a text with {task_template} are sent to be
    continued, as the local model continues them.

    Raises:
        EvaluationError: an unknown corpus.
    """

    def __init__(self, endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase, setup: Setup) -> None:
        self.endpoint = endpoint
        self.tokenizer = tokenizer
        self.setup = setup
        self.chat = setup.template == "chat"
        # The server puts its own template around a message.
        self._task_setup = replace(setup, template="base") if self.chat else setup
        self._tokenizer_sha256 = tokenizer_sha256(tokenizer)
        self._corpus_sha256 = corpora.sha256(setup.corpus)
        self._tasks: dict[str, TextTask] = {}

    def task(self, name: str) -> TextTask:
        """The task of a name, made once.

        Raises:
            EvaluationError: an unknown name, or a task that needs more of a model than text.
        """
        if name not in self._tasks:
            task = make_task(name, self._task_setup)
            if not isinstance(task, TextTask):
                raise EvaluationError(
                    f"{name} is scored on a model's probabilities, and an endpoint gives only text; "
                    f"ask it needle or tasks of ruler, and measure {name} on a local model"
                )
            self._tasks[name] = task
        return self._tasks[name]

    def key(self, unit: Unit) -> Key:
        """What the unit's sample is stored under; needs no document."""
        task = self.task(unit.task)
        return Key(
            task=unit.task,
            protocol=task.protocol + (CHAT if self.chat else ""),
            template="chat" if self.chat else getattr(task, "template", ""),
            resolved=self.endpoint.resolved,
            control="",
            plan_sha256="",
            length=unit.length,
            seed=unit.seed,
            document=unit.document,
            model_sha256=self.endpoint.sha256,
            tokenizer_sha256=self._tokenizer_sha256,
            corpus_sha256=task.own_text[1] if task.own_text else self._corpus_sha256,
            dtype="unknown",
            backend="endpoint",
        )

    def paper(self, unit: Unit) -> Paper:
        """The unit's document with its questions.

        Raises:
            EvaluationError: a length that is too short for the task.
        """
        task = self.task(unit.task)
        seed = document_seed(unit.seed, unit.document)
        document = task.build(self.tokenizer, unit.length, seed=seed, corpus=self.setup.corpus)
        text = task.text(self.tokenizer, document)
        prompts = tuple(
            Prompt(
                text=text + question.text,
                tokens=len(document.ids) + self.count(question.text),
                new_tokens=question.new_tokens + self.endpoint.extra_tokens,
                question=question,
            )
            for question in task.questions(document)
        )
        local = [*document.ids, *encode(self.tokenizer, prompts[0].question.text)]
        retokenized = [*start_tokens(self.tokenizer), *encode(self.tokenizer, prompts[0].text)] != local
        return Paper(unit, self.key(unit), task, document, prompts, retokenized)

    def count(self, text: str) -> int:
        """Tokens of a text, no special tokens added."""
        return len(encode(self.tokenizer, text))

    def answer(self, prompt: Prompt, said: str) -> str:
        """What is graded of a reply: in a chat, what follows the words that it was to begin with."""
        begun = prompt.question.text.strip()
        if self.chat and begun and said.lstrip().startswith(begun):
            return said.lstrip().removeprefix(begun)
        return said
