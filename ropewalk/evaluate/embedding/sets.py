"""LongEmbed's two synthetic tasks (arXiv 2404.12096, section 3.1), generated offline with any tokenizer.

Each candidate document hides one sentence in a text of `length` tokens; each query asks for the sentence of one of
them, and the document that holds it is to be found among all.
"""

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import cycle
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.embedding.facts import FACTS
from ropewalk.evaluate.embedding.filler import Filler
from ropewalk.evaluate.embedding.people import NAMES
from ropewalk.evaluate.ruler.haystack import endless
from ropewalk.evaluate.ruler.wording import NOISE
from ropewalk.evaluate.ruler.words import running_sentences, sentences
from ropewalk.registry import Registry

# As published: 50 queries and 100 candidate documents at each length.
QUERIES = 50
CANDIDATES = 100


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and the documents that they are searched in.

    Attributes:
        documents: candidates, in random order.
        queries: `golds[i]` is the index of the document that answers query i; no document answers two.
        depths: of the sentence in each document, 0 at its beginning to 1 at its end.
        sizes: tokens of each document, special tokens and a prompt before it included.
    """

    documents: tuple[str, ...]
    queries: tuple[str, ...]
    golds: tuple[int, ...]
    depths: tuple[float, ...]
    sizes: tuple[int, ...]

    @cached_property
    def _documents_sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.documents).encode()).hexdigest()

    def sha256(self, query: int) -> str:
        """Hash of one query and all that it is searched in."""
        return hashlib.sha256(f"{self._documents_sha256} {self.queries[query]}".encode()).hexdigest()


class RetrievalTask(ABC):
    """One of the two; `protocol` changes whenever numbers stop being comparable."""

    name: ClassVar[str]
    protocol: ClassVar[str]
    most: ClassVar[int]  # candidates that there can be

    def build(
        self,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        *,
        seed: int,
        corpus: str,
        queries: int = QUERIES,
        candidates: int = CANDIDATES,
        prompt: str = "",
    ) -> RetrievalSet:
        """The set of a seed: documents of at most `length` tokens, as full as whole words make them.

        Args:
            prompt: what the model puts before every document; its tokens count.

        Raises:
            EvaluationError: a length too short for a hidden sentence, too many documents, or an unknown corpus.
        """
        assert 1 <= queries <= candidates
        if candidates > self.most:
            raise EvaluationError(
                f"{self.name} has sentences for {self.most} documents, got {candidates}; ask for that many at most"
            )
        rng = random.Random(f"{self.protocol} {seed}")
        statements = self.statements(rng, candidates)
        strata = rng.sample(range(candidates), candidates)
        depths = [(stratum + rng.random()) / candidates for stratum in strata]
        filler = Filler(tokenizer, self.filler(rng, corpus), prompt)
        fitted = [
            filler.fit(partial(self.hide, statement=hidden, depth=depth), hidden, length)
            for (_, hidden), depth in zip(statements, depths, strict=True)
        ]
        # All of them drawn, whatever is asked: a query of a number is the same in a set of more.
        golds = tuple(rng.sample(range(candidates), candidates)[:queries])
        return RetrievalSet(
            tuple(text for text, _ in fitted),
            tuple(statements[gold][0] for gold in golds),
            golds,
            tuple(depths),
            tuple(size for _, size in fitted),
        )

    @abstractmethod
    def statements(self, rng: random.Random, count: int) -> list[tuple[str, str]]:
        """(query, sentence) of every candidate."""

    @abstractmethod
    def filler(self, rng: random.Random, corpus: str) -> Iterator[str]:
        """The words of the text around the sentences, without end, the same for every document of a set."""

    @abstractmethod
    def hide(self, words: Sequence[str], statement: str, depth: float) -> str:
        """The text of some of those words with the sentence in it."""

    @abstractmethod
    def text(self, corpus: str) -> tuple[str, str]:
        """Name and SHA-256 of the text around the sentences."""


RETRIEVAL: Registry[RetrievalTask] = Registry("retrieval task", EvaluationError)
SUITE = "longembed"


class Passkey(RetrievalTask):
    """Whose pass key? The form of "personalized passkey retrieval" (arXiv 2401.00368), which LongEmbed took over.

    Every document holds the pass key of another person in the same noise. It differs where theirs is not exact: lengths
    are counted in tokens of the model at hand, depths lie one in each equal part of the text.
    """

    name = "longembed-passkey"
    protocol = "longembed-passkey/1"
    most = len(NAMES)

    def statements(self, rng: random.Random, count: int) -> list[tuple[str, str]]:
        return [_owner(name, rng.randint(10_000, 99_999)) for name in rng.sample(NAMES, count)]

    def filler(self, rng: random.Random, corpus: str) -> Iterator[str]:
        return cycle(" ".join(NOISE).split())

    def hide(self, words: Sequence[str], statement: str, depth: float) -> str:
        """As published: noise before and after it, each from its first word on, cut at a word."""
        before = int(depth * (len(words) + 1))
        return "\n".join(filter(None, (" ".join(words[:before]), statement, " ".join(words[: len(words) - before]))))

    def text(self, corpus: str) -> tuple[str, str]:
        return "noise", hashlib.sha256(" ".join(NOISE).encode()).hexdigest()


def _owner(name: str, key: int) -> tuple[str, str]:
    return (
        f"what is the passkey for {name}?",
        f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}.",
    )


class Needle(RetrievalTask):
    """Which text holds the fact? One fact of a hundred in each document, between two sentences of running text.

    As in LongEmbed all documents are made of one text, so that only the fact tells them apart; theirs is an essay of
    Paul Graham's, ours a stretch of a corpus that depends on the seed. Their facts were written by GPT-4 and are not at
    hand: see `ropewalk.evaluate.embedding.facts`.
    """

    name = "longembed-needle"
    protocol = "longembed-needle/1"
    most = len(FACTS)

    def statements(self, rng: random.Random, count: int) -> list[tuple[str, str]]:
        return rng.sample(FACTS, count)

    def filler(self, rng: random.Random, corpus: str) -> Iterator[str]:
        whole = running_sentences(corpus)
        lines = endless(whole, rng.randrange(len(whole)))
        return (word for line in lines for word in line.split(" "))

    def hide(self, words: Sequence[str], statement: str, depth: float) -> str:
        lines = sentences(" ".join(words))
        lines.insert(int(depth * (len(lines) + 1)), statement)
        return " ".join(lines)

    def text(self, corpus: str) -> tuple[str, str]:
        return corpus, corpora.sha256(corpus)


RETRIEVAL.register(Passkey.name)(Passkey())
RETRIEVAL.register(Needle.name)(Needle())


def expand(names: Sequence[str]) -> list[str]:
    """The tasks of names, each once; "longembed" is both.

    Raises:
        EvaluationError: an unknown name.
    """
    tasks = [task for name in names for task in (RETRIEVAL.names() if name == SUITE else [name])]
    for task in tasks:
        RETRIEVAL.get(task)
    return list(dict.fromkeys(tasks))
