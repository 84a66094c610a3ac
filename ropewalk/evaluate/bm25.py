"""How well pieces of a text answer a search, by the words that they share."""

import re
from collections.abc import Sequence

import bm25s
import numpy as np

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; nothing is stemmed, no word is left out."""
    return _WORD.findall(text.lower())


def bm25(searches: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Okapi BM25 in Lucene's form: the sum over the words of a search of idf tf / (tf + k1 (1 - b + b length / mean)).

    tf is how often the word stands in the text, idf = log(1 + (N - n + 1/2) / (n + 1/2)) with n of N texts that have
    it, lengths in words; k1 = 1.5 and b = 0.75, the defaults of bm25s (arXiv 2407.03618), which computes it.

    Returns:
        [searches, texts] float32, 0 where they share no word.
    """
    index = bm25s.BM25(method="lucene")
    split = [words(text) for text in texts]
    known = {word for text in split for word in text}
    found = np.zeros((len(searches), len(texts)), dtype=np.float32)
    if known:
        index.index(split, show_progress=False)
    for row, search in enumerate(searches):
        sought = [word for word in words(search) if word in known]
        if sought:
            found[row] = index.get_scores(sought)
    return found
