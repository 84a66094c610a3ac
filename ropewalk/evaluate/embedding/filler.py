"""Text of a given number of tokens around a sentence: words are tokenised once for all documents of a set."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError

# Words tokenised at a time.
BLOCK = 4096
# Documents tokenised at most for one; it takes one or two with word pieces, a few where tokens cross words.
ROUNDS = 12
# A document is full when no more than this share of the length is left.
FULL = 1 / 256


class Filler:
    """The words around the hidden sentences of a set, as many as were asked for, with the running sum of their tokens.

    Args:
        words: without end.
        prompt: what the model puts before every document.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: Iterator[str], prompt: str = "") -> None:
        self.words: list[str] = []
        self._sums = [0]
        self._known: dict[str, int] = {}
        self._stream = words
        self._tokenizer = tokenizer
        self._prompt = prompt

    def count(self, text: str) -> int:
        """Tokens of a document as the model reads it: its prompt and special tokens with it."""
        return len(self._tokenizer(self._prompt + text, verbose=False)["input_ids"])

    def fit(self, make: Callable[[Sequence[str]], str], hidden: str, length: int) -> tuple[str, int]:
        """A document with as many words as fit `length` tokens.

        Args:
            make: the document of some words.
            hidden: the sentence in it.

        Returns:
            The document, and its tokens: at least 255 in 256 of `length`, but for words that are longer than that.

        Raises:
            EvaluationError: the sentence does not fit with one word around it.
        """
        text = make(self._first(1))
        used = self.count(text)
        if used > length:
            raise EvaluationError(
                f"{hidden!r} with one word of text around it takes {used} tokens, got a length of {length}; "
                "ask for a longer one (LongEmbed's are 256 to 32k)"
            )
        first, size, best = used, 1, (text, used)
        above: int | None = None  # the fewest words known not to fit
        rate = 1.0  # exact tokens per token of the sums: tokens may reach across words
        for _ in range(ROUNDS):
            room = length - best[1]
            if size > 1 and room <= length * FULL:
                break
            wanted = max(self._reach(self._sums[size] + room / rate), size + 1)
            if above is not None:
                wanted = min(wanted, above - 1)
            if wanted <= size:
                break
            text = make(self._first(wanted))
            used = self.count(text)
            rate = max(0.01, (used - first) / (self._sums[wanted] - self._sums[1]))
            if used <= length:
                size, best = wanted, (text, used)
            else:
                above = wanted
        return best

    def _first(self, words: int) -> Sequence[str]:
        while len(self.words) < words:
            self._take()
        return self.words[:words]

    def _reach(self, tokens: float) -> int:
        """The most words that have no more than `tokens` tokens together."""
        while self._sums[-1] <= tokens:
            self._take()
        return bisect_right(self._sums, tokens) - 1

    def _take(self) -> None:
        block = list(islice(self._stream, BLOCK))
        new = [word for word in dict.fromkeys(block) if word not in self._known]
        if new:
            encoded = self._tokenizer([f" {word}" for word in new], add_special_tokens=False, verbose=False)
            # A tokenizer may drop words, and the sum must grow.
            self._known |= {word: max(1, len(ids)) for word, ids in zip(new, encoded["input_ids"], strict=True)}
        for word in block:
            self._sums.append(self._sums[-1] + self._known[word])
        self.words += block
