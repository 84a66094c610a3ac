"""The paragraphs and facts that a needle document was put together from."""

from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import SEPARATOR, encode, start_tokens
from ropewalk.evaluate.tasks.needle import NeedleDocument


@dataclass(frozen=True)
class Stretch:
    """A paragraph or the sentence of a fact.

    Attributes:
        text, ids: with the blank line after it; the last paragraph as far as the document has it.
        fact: index of the fact, or None.
    """

    text: str
    ids: tuple[int, ...]
    fact: int | None


# A control takes a document apart once for each of its questions.
@lru_cache(maxsize=2)
def stretches(tokenizer: PreTrainedTokenizerBase, document: NeedleDocument) -> tuple[Stretch, ...]:
    """The stretches of a document as `needle.build` made it; their tokens one after the other are its own.

    Raises:
        EvaluationError: the corpus is not there any more.
    """
    assert not document.shortened, "only a whole document can be taken apart"
    texts = corpora.paragraphs(document.corpus)
    end = len(encode(tokenizer, SEPARATOR))
    places = {fact.position: index for index, fact in enumerate(document.facts) if fact.position is not None}
    found: list[Stretch] = []
    at, paragraph = len(start_tokens(tokenizer)), document.start
    while at < len(document.ids):
        index = places.get(at)
        if index is not None:
            fact = document.facts[index]
            text = f"{fact.prefix} {fact.answer}.{SEPARATOR}"
        else:
            text = texts[paragraph % len(texts)] + SEPARATOR
            paragraph += 1
        ids = encode(tokenizer, text)
        # Facts stand between paragraphs, so what reaches past the next one was cut to fit.
        limit = min((place for place in places if place > at), default=len(document.ids)) - at
        if len(ids) > limit:
            ids = list(document.ids[at : at + limit])
            text = tokenizer.decode(ids[: max(0, limit - end)], clean_up_tokenization_spaces=False) + SEPARATOR
        assert ids == list(document.ids[at : at + len(ids)])
        found.append(Stretch(text, tuple(ids), index))
        at += len(ids)
    return tuple(found)
