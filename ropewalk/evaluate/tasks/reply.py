"""Put a question to a model that has read a document, and leave the document's cache as it was."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import encode
from ropewalk.evaluate.tasks.base import Question


@dataclass(frozen=True)
class Draft:
    """A question and its true answer in tokens.

    Attributes:
        query: of the question's text.
        answer: of " V1, V2, V3" after it, V1.. the references in their order.
        owners: for each token of `answer` the index of the reference that it writes; -1 for a comma.
    """

    query: tuple[int, ...]
    answer: tuple[int, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: generated greedily, as far as it took to decide.
        log_probabilities: of each reference in the true answer, given the question and the references before it, nats.
    """

    text: str
    log_probabilities: tuple[float, ...]


def draft(tokenizer: PreTrainedTokenizerBase, question: Question) -> Draft:
    """The question and its true answer in tokens.

    Raises:
        EvaluationError: the tokenizer writes the question in other tokens when the answer follows it.
    """
    text = question.text
    ids = query = encode(tokenizer, text)
    owners: list[int] = []
    parts = [(f" {value}", index) for index, value in enumerate(question.references)]
    for part, owner in [pair for value in parts for pair in ((",", -1), value)][1:]:
        text += part
        longer = encode(tokenizer, text)
        if longer[: len(ids)] != ids:
            raise EvaluationError(
                f"this tokenizer joins {part!r} with the text before it, so no answer can follow a question that was "
                "read; needles do not work with it"
            )
        owners += [owner] * (len(longer) - len(ids))
        ids = longer
    return Draft(tuple(query), tuple(ids[len(query) :]), tuple(owners))


@torch.inference_mode()
def reply(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cache: DynamicCache,
    question: Question,
    *,
    enough: Callable[[str], bool],
) -> Reply:
    """Ask a model whose `cache` holds a document; afterwards it holds that document again, and nothing else.

    Question and true answer are run together: that gives the answer's probability, and the greedy continuation as far
    as it agrees with the answer, plus one token, exactly as assisted decoding would with the answer as its draft.

    Args:
        enough: whether what was generated so far decides the score, whatever would follow.
    """
    length = cache.get_seq_length()
    made = draft(tokenizer, question)
    target = torch.tensor(made.answer)
    logits = _feed(model, cache, [*made.query, *made.answer])[-len(target) - 1 :]  # [answer + 1, V]
    each = torch.log_softmax(logits[:-1], dim=-1).gather(1, target[:, None])[:, 0].tolist()
    owned = tuple(
        sum(value for value, owner in zip(each, made.owners, strict=True) if owner == index)
        for index in range(len(question.references))
    )

    greedy = logits.argmax(dim=-1)
    agreed = int((greedy[:-1] == target).int().cumprod(0).sum())
    generated = greedy[: agreed + 1].tolist()[: question.new_tokens]
    ends = end_tokens(model)
    # The last of them was generated, but not fed.
    _cut(cache, length + len(made.query) + len(generated) - 1)
    text = tokenizer.decode(generated, skip_special_tokens=True)
    while ends.isdisjoint(generated) and len(generated) < question.new_tokens and not enough(text):
        generated.append(int(_feed(model, cache, generated[-1:])[-1].argmax()))
        text = tokenizer.decode(generated, skip_special_tokens=True)
    _cut(cache, length)
    last = next((index for index, token in enumerate(generated) if token in ends), len(generated))
    return Reply(tokenizer.decode(generated[:last], skip_special_tokens=True), owned)


def end_tokens(model: PreTrainedModel) -> set[int]:
    """Token ids at which the model ends."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def _cut(cache: DynamicCache, length: int) -> None:
    """Remove what the cache holds beyond its first `length` tokens."""
    if extra := cache.get_seq_length() - length:
        cache.crop(-extra)


def _feed(model: PreTrainedModel, cache: DynamicCache, ids: list[int]) -> Tensor:
    """Append tokens to the cache; their logits [T, V], float32, on the CPU."""
    tokens = torch.tensor([ids], device=model.device)
    return model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[0].float().cpu()
