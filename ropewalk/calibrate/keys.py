"""Key dimensions: the rotary pairs that matter most to a head, chosen by their norms."""

import random
from typing import Literal, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import filler, start_tokens

Share = Literal["head", "kv", "layer"]
SHARES: tuple[str, ...] = get_args(Share)
# Documents of the longest prefix; the authors read ten.
DOCUMENTS = 10


def select_keys(norms: np.ndarray, *, top_k: int, share: str, num_kv_heads: int) -> np.ndarray:
    """The `top_k` pairs with the largest norms; equal ones from the fastest on.

    Args:
        norms: [layers, query heads, pairs], from `pair_norms`.
        top_k: pairs, 1 to all. The authors take 48 or 32 of 64.
        share: whose norms are added up before choosing, so that they share their pairs: "head" as published (each query
            head for itself), "kv" (the query heads of one key head) or "layer". The last two are not the authors'; a
            layer that shares its pairs attends as fast as one without a mask, because its keys are rotated once.
        num_kv_heads: of the model.

    Returns:
        bool [layers, query heads, pairs], or [layers, 1, pairs] where heads share.

    Raises:
        EvaluationError: a number of pairs or a way to share that does not exist.
    """
    layers, heads, pairs = norms.shape
    if not 1 <= top_k <= pairs:
        raise EvaluationError(f"{top_k} key dimensions of {pairs} rotary pairs; give a number between 1 and {pairs}")
    if share not in SHARES:
        raise EvaluationError(f"key dimensions cannot be shared by {share!r}; give one of {', '.join(SHARES)}")
    groups = {"head": heads, "kv": num_kv_heads, "layer": 1}[share]
    together = norms.reshape(layers, groups, heads // groups, pairs).sum(2)
    order = np.argsort(-together, axis=-1, kind="stable")[..., :top_k]
    mask = np.zeros(together.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask if groups == 1 else mask.repeat(heads // groups, axis=1)


def key_texts(
    tokenizer: PreTrainedTokenizerBase, length: int, *, documents: int, seed: int, corpus: str
) -> list[list[int]]:
    """Running text of `length` tokens each, from random paragraphs of a corpus on; no prompt is hidden in it.

    Raises:
        EvaluationError: a length without room for text, or an unknown corpus.
    """
    begin = start_tokens(tokenizer)
    texts = []
    for index in range(documents):
        rng = random.Random(f"key dimensions {seed} {index}")
        _, pieces = filler(tokenizer, length - len(begin), rng=rng, corpus=corpus)
        texts.append([*begin, *(token for piece in pieces for token in piece)])
    return texts
