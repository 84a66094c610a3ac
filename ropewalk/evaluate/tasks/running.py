"""Running text to score token by token: it never repeats, and every token knows the text that it stands for."""

import random
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Self

from transformers import PreTrainedTokenizerBase

from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import SEPARATOR, Document, filler


@dataclass(frozen=True)
class RunningText(Document):
    """Start tokens, then consecutive paragraphs.

    Attributes:
        text: without the start tokens; it ends where the last token does.
        ends: [T], characters of `text` up to the end of each token, start tokens at 0. A character that is split over
            several tokens belongs to the first of them. None, and no text, where the tokenizer does not say it.
    """

    text: str
    ends: tuple[int, ...] | None

    def without(self, first: int, last: int) -> Self:
        """See `Document.without`; the text loses what these tokens stand for."""
        short = super().without(first, last)
        if self.ends is None:
            return short
        edges = (0, *self.ends)
        begin, end = edges[first], edges[last]
        moved = tuple(place - (end - begin) for place in self.ends[last:])
        return replace(short, text=self.text[:begin] + self.text[end:], ends=self.ends[:first] + moved)

    def sizes(self) -> list[int] | None:
        """UTF-8 bytes of the text of each token; their sum is that of the whole text. None without `ends`."""
        if self.ends is None:
            return None
        return [len(self.text[begin:end].encode("utf-8")) for begin, end in pairwise((0, *self.ends))]


def running_text(
    tokenizer: PreTrainedTokenizerBase, length: int, *, begin: list[int], rng: random.Random, seed: int, corpus: str
) -> RunningText:
    """Exactly `length` tokens: `begin`, then the paragraphs of a corpus from a random one on, the last one cut to fit.

    Args:
        begin: start tokens; not scored.
        corpus: name of the text, for `ropewalk.evaluate.corpus`.

    Raises:
        EvaluationError: as for `ropewalk.evaluate.document.filler`.
    """
    start, pieces = filler(tokenizer, length - len(begin), rng=rng, corpus=corpus)
    texts = corpora.paragraphs(corpus)
    ids = list(begin)
    text, ends = "", [0] * len(begin)
    for piece, paragraph in zip(pieces, texts[start:] + texts[:start], strict=False):
        ids += piece
        if tokenizer.is_fast:
            part, part_ends = _places(tokenizer, paragraph, piece)
            ends += [len(text) + end for end in part_ends]
            text += part
    scored = (False,) * len(begin) + (True,) * (length - len(begin))
    known = tuple(ends) if tokenizer.is_fast else None
    return RunningText(tuple(ids), scored, seed, corpus, start, text=text, ends=known)


def _places(tokenizer: PreTrainedTokenizerBase, paragraph: str, piece: list[int]) -> tuple[str, list[int]]:
    """The text that the tokens of a paragraph, whole or cut by `filler`, stand for, and where each ends in it."""
    whole, separator = token_ends(tokenizer, paragraph + SEPARATOR), token_ends(tokenizer, SEPARATOR)
    if len(piece) == len(whole):
        return paragraph + SEPARATOR, whole
    kept = whole[: max(0, len(piece) - len(separator))]
    body = paragraph[: kept[-1]] if kept else ""
    ends = kept + [len(body) + end for end in separator]
    return body + SEPARATOR, ends[: len(piece)]


def token_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Where each token of a text ends in it, characters, by a fast tokenizer; the last one takes what is left.

    Ends alone are used: some tokenizers leave the white space in front of a word out of its token.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ends = list(accumulate((end for _, end in encoded["offset_mapping"]), max))
    return [*ends[:-1], len(text)] if ends else []
