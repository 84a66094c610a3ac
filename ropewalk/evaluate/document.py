"""A document to evaluate on: filler text of an exact token count, the same for every method."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Document:
    """Token ids to prefill.

    Attributes:
        ids: token ids; a start token comes first where the tokenizer adds one.
        scored: for each token, whether its loss counts; the start token and hidden facts do not.
        seed: of every choice in it.
        corpus: name of the text, for `ropewalk.evaluate.corpus`.
        start: index of the corpus paragraph that it begins with.
        shortened: tokens were taken out of it since it was built, so that only `ids` say what its text is.
    """

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    seed: int
    corpus: str
    start: int
    shortened: bool = field(default=False, kw_only=True)

    def without(self, first: int, last: int) -> Self:
        """The document without its tokens first..last - 1; what else it holds of places moves along."""
        return replace(
            self,
            ids=self.ids[:first] + self.ids[last:],
            scored=self.scored[:first] + self.scored[last:],
            shortened=True,
        )

    def moved(self, places: Sequence[int | None], first: int, last: int) -> list[int | None]:
        """Where hidden sentences begin in the document without its tokens first..last - 1.

        Args:
            places: where they begin now. Each goes on to the next one, or to the next token that counts for the loss.

        Returns:
            Their new places; None for those that lose a token, or that are not there now.
        """
        scored = (*self.scored, True)
        found: list[int | None] = []
        for place in places:
            if place is None:
                found.append(None)
                continue
            end = min([scored.index(True, place), *(other for other in places if other is not None and other > place)])
            if end <= first:
                found.append(place)
            else:
                found.append(place - (last - first) if place >= last else None)
        return found


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a piece of text, no special tokens added."""
    # Whole corpora are longer than any window: the tokenizer's warning about that says nothing here.
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a document's tokens, without a start token at its beginning."""
    begin = start_tokens(tokenizer)
    rest = list(ids[len(begin) :] if list(ids[: len(begin)]) == begin else ids)
    return tokenizer.decode(rest, clean_up_tokenization_spaces=False)


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text: its start token, or nothing."""
    added = tokenizer("", add_special_tokens=True)["input_ids"]
    return added[:1] if added and added[0] == tokenizer.bos_token_id else []


def filler(
    tokenizer: PreTrainedTokenizerBase, length: int, *, rng: random.Random, corpus: str
) -> tuple[int, list[list[int]]]:
    """Consecutive paragraphs of a corpus, from a random one on, of `length` tokens together.

    Every paragraph ends with a blank line; the last one is cut to fit. Past its end the corpus goes on with its first
    paragraph, but not for a second time: a model that has read a text predicts its repetition by copying, which says
    nothing of how well it models text.

    Returns:
        The index of the first paragraph, and the token ids of each paragraph.

    Raises:
        EvaluationError: `length` has no room for one token of text, or the corpus is unknown, or has fewer tokens than
            wanted (the message says how many are missing).
    """
    texts = corpora.paragraphs(corpus)
    end = encode(tokenizer, SEPARATOR)
    if length <= len(end):
        raise EvaluationError(f"no room for text in a document of {length} tokens; ask for a longer one")
    start = index = rng.randrange(len(texts))
    pieces: list[list[int]] = []
    room = length
    while room > 0:
        if index - start == len(texts):
            raise EvaluationError(
                f"{corpus} is too short: {length - room} tokens, {room} fewer than the {length} that are wanted; "
                "repeated text would be read by copying, so give a longer text or ask for a shorter length"
            )
        piece = encode(tokenizer, texts[index % len(texts)] + SEPARATOR)
        if len(piece) > room:
            piece = (piece[: max(0, room - len(end))] + end)[:room]
        pieces.append(piece)
        room -= len(piece)
        index += 1
    return start, pieces
