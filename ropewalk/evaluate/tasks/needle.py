"""Needle documents: ten facts of ten kinds hidden in running text, one at a random place of each tenth of it."""

import random
from dataclasses import dataclass, replace
from typing import Self

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import SEPARATOR, Document, encode, filler, start_tokens
from ropewalk.evaluate.tasks.facts import KINDS, Kind

PROTOCOL = "needle-ten-kinds/1"
# The longest free answer that is generated after a query; queries and answers count towards the length asked for.
NEW_TOKENS = 12
# Of its 12 or 13 answers a kind must keep this many, with first tokens that differ, or chance is no longer small.
MIN_CANDIDATES = 8


@dataclass(frozen=True)
class Fact:
    """One hidden fact and how to ask for it.

    Attributes:
        prefix, answer: the sentence is f"{prefix} {answer}."
        query: token ids of `prefix`.
        answer_ids: token ids of the answer after the prefix.
        candidate_ids: first token of every answer of this kind, all different; the true one is at `correct`.
        correct: index of the answer in `candidate_ids`.
        position: index in the document of the sentence's first token; None where a control took a part of it out.
    """

    prefix: str
    answer: str
    query: tuple[int, ...]
    answer_ids: tuple[int, ...]
    candidate_ids: tuple[int, ...]
    correct: int
    position: int | None


@dataclass(frozen=True)
class NeedleDocument(Document):
    """A document with facts, in the order in which they stand in it."""

    facts: tuple[Fact, ...]

    def without(self, first: int, last: int) -> Self:
        """See `Document.without`; facts that lose a token are there no more."""
        places = self.moved([fact.position for fact in self.facts], first, last)
        facts = tuple(at(fact, place) for fact, place in zip(self.facts, places, strict=True))
        return replace(super().without(first, last), facts=facts)


def build(tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> NeedleDocument:
    """A needle document; with the longest query, its answer and NEW_TOKENS more it has exactly `length` tokens.

    The facts, their answers, their order and their depths come from `seed`. Fact i stands at a uniformly random point
    of the i-th tenth, moved on to the end of the paragraph there, so near and far facts are always equally many.

    Args:
        length: tokens.
        corpus: name of the text, for `ropewalk.evaluate.corpus`.

    Raises:
        EvaluationError: `length` is too short for the facts, or the tokenizer cannot tell the answers apart.
    """
    rng = random.Random(f"{PROTOCOL} {seed}")
    kinds = rng.sample(KINDS, len(KINDS))
    drafts = [_draft(tokenizer, kind, rng) for kind in kinds]
    sentences = [encode(tokenizer, f"{fact.prefix} {fact.answer}.{SEPARATOR}") for fact in drafts]
    begin = start_tokens(tokenizer)
    reserve = max(len(fact.query) + len(fact.answer_ids) for fact in drafts) + NEW_TOKENS
    hidden = sum(map(len, sentences))
    room = length - reserve - len(begin) - hidden
    if room < hidden:
        raise EvaluationError(
            f"a needle document of {length} tokens is too short; its facts and queries alone take {length - room}: "
            f"ask for {length - room + hidden} tokens or more"
        )
    start, pieces = filler(tokenizer, room, rng=rng, corpus=corpus)

    depths = [(i + rng.random()) / len(drafts) * room for i in range(len(drafts))]
    ids, scored = list(begin), [False] * len(begin)
    facts: list[Fact] = []
    passed = 0
    for piece in pieces:
        ids += piece
        scored += [True] * len(piece)
        passed += len(piece)
        while len(facts) < len(drafts) and depths[len(facts)] <= passed:
            draft, sentence = drafts[len(facts)], sentences[len(facts)]
            facts.append(at(draft, len(ids)))
            ids += sentence
            scored += [False] * len(sentence)
    assert len(facts) == len(drafts) and len(ids) == length - reserve
    return NeedleDocument(tuple(ids), tuple(scored), seed, corpus, start, tuple(facts))


def _draft(tokenizer: PreTrainedTokenizerBase, kind: Kind, rng: random.Random) -> Fact:
    """A fact without a place; its answer is drawn from the candidates that differ in their first token."""
    query = encode(tokenizer, kind.prefix)
    answers: dict[int, tuple[str, list[int]]] = {}
    for candidate in kind.candidates:
        whole = encode(tokenizer, f"{kind.prefix} {candidate}")
        if whole[: len(query)] == query and len(whole) > len(query):
            answers.setdefault(whole[len(query)], (candidate, whole[len(query) :]))
    if len(answers) < MIN_CANDIDATES:
        raise EvaluationError(
            f"this tokenizer tells only {len(answers)} of the answers to {kind.prefix!r} apart by their first token, "
            f"{MIN_CANDIDATES} are needed; the needle task does not work with it"
        )
    correct = rng.randrange(len(answers))
    answer, answer_ids = list(answers.values())[correct]
    return Fact(kind.prefix, answer, tuple(query), tuple(answer_ids), tuple(answers), correct, position=0)


def at(fact: Fact, position: int | None) -> Fact:
    """The fact in another place."""
    return Fact(**{**fact.__dict__, "position": position})
