"""Ask a model for the facts of a document that it has read: one cache serves all queries."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.tasks.needle import NEW_TOKENS, Fact, NeedleDocument

# Of the answer that is shown; at most NEW_TOKENS, which the document leaves room for.
SHOWN_TOKENS = 8


@dataclass(frozen=True)
class Answer:
    """What a model said to one query.

    Attributes:
        retrieved: the text generated greedily starts with the answer, as a word of its own.
        log_probability: of the whole answer after the query, nats.
        chosen: the answer's first token is the likeliest of those of all answers of its kind.
        distance: tokens from the fact to the query; None where a control took the fact out.
        prefix, answer: of the fact.
        text: what was generated, only as far as it took to decide, except where more was asked for.
    """

    retrieved: bool
    log_probability: float
    chosen: bool
    distance: int | None
    prefix: str
    answer: str
    text: str


@torch.inference_mode()
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cache: DynamicCache,
    document: NeedleDocument,
    *,
    show: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Put every query of `document` to a model whose `cache` holds that document; the cache is left as it was.

    Query and true answer are run together: that gives the answer's probability, and the greedy continuation as far as
    it agrees with the answer, plus one token, exactly as assisted decoding would with the answer as its draft.

    Args:
        show: index of the fact whose answer is generated on to SHOWN_TOKENS tokens, to be shown.
        progress: called with the number of facts done.
    """
    answers = []
    for index, fact in enumerate(document.facts):
        answers.append(_ask(model, tokenizer, cache, fact, len(document.ids), whole=index == show))
        if progress:
            progress(index + 1)
    return answers


def _ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cache: DynamicCache,
    fact: Fact,
    length: int,
    *,
    whole: bool,
) -> Answer:
    target = torch.tensor(fact.answer_ids)
    draft = [*fact.query, *fact.answer_ids]
    logits = _feed(model, cache, draft)[-len(target) - 1 :]  # [answer + 1, V]
    log_probability = torch.log_softmax(logits[:-1], dim=-1).gather(1, target[:, None]).sum().item()
    chosen = logits[0, list(fact.candidate_ids)].argmax().item() == fact.correct

    greedy = logits.argmax(dim=-1)
    agreed = int((greedy[:-1] == target).int().cumprod(0).sum())
    generated = greedy[: agreed + 1].tolist()
    # The cache keeps the document, the query and the agreed tokens; the last generated one has not been fed.
    cache.crop(agreed - len(target))
    text = tokenizer.decode(generated)
    # An answer cut short could still be the true one in other tokens than the tokenizer's own.
    while len(generated) < (SHOWN_TOKENS if whole else NEW_TOKENS) and (whole or _open(text, fact.answer)):
        generated.append(int(_feed(model, cache, generated[-1:])[-1].argmax()))
        text = tokenizer.decode(generated)
    cache.crop(length - cache.get_seq_length())
    distance = None if fact.position is None else length - fact.position
    return Answer(starts_with(text, fact.answer), log_probability, chosen, distance, fact.prefix, fact.answer, text)


def starts_with(text: str, answer: str) -> bool:
    """Whether a text starts with an answer, as a word of its own."""
    return re.match(rf"\s*{re.escape(answer)}\b", text) is not None


def _open(text: str, answer: str) -> bool:
    """Whether more tokens could still turn `text` into one that starts with `answer`."""
    said = text.lstrip()
    return answer.startswith(said)


def _feed(model: PreTrainedModel, cache: DynamicCache, ids: list[int]) -> Tensor:
    """Append tokens to the cache; their logits [T, V], float32, on the CPU."""
    tokens = torch.tensor([ids], device=model.device)
    return model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[0].float().cpu()
