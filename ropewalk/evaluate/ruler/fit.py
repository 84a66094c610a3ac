"""Fit a draft to a number of tokens: units are tokenised once, the whole prompt a few times."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import islice

from transformers import PreTrainedTokenizerBase

from ropewalk.evaluate.ruler.base import Body, Draft, Unit

# Units tokenised at a time.
BLOCK = 1024
# Whole prompts tokenised at most; with SmolLM2's tokenizer it takes two to four.
ROUNDS = 24
# A prompt is full when no more than this share of the room is left: its last unit needs no proof that it is the last.
FULL = 1 / 512


class TooShortError(Exception):
    """Not even the least of a draft fits; `tokens` is what that has. Never reaches a user."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"the shortest prompt has {tokens} tokens")
        self.tokens = tokens


class Costs:
    """The units of a draft, as many as were asked for, with the running sum of their tokens.

    A unit counts one token or more: a tokenizer may drop words, and the sum must grow.
    """

    def __init__(self, draft: Draft, tokenizer: PreTrainedTokenizerBase) -> None:
        self.units: list[Unit] = []
        self.total = [0]
        self._stream = draft.units()
        self._tokenizer = tokenizer
        self._known: dict[str, int] = {}

    def reach(self, tokens: float = 0, *, units: int = 0) -> None:
        """Take units until their sum is above `tokens` and there are `units` of them, or there are no more."""
        while self.total[-1] <= tokens or len(self.units) < units:
            block = list(islice(self._stream, BLOCK))
            if not block:
                return
            new = list(dict.fromkeys(unit.cost for unit in block if unit.cost not in self._known))
            if new:
                encoded = self._tokenizer(new, add_special_tokens=False, verbose=False)["input_ids"]
                self._known.update((text, max(1, len(ids))) for text, ids in zip(new, encoded, strict=True))
            for unit in block:
                self.total.append(self.total[-1] + self._known[unit.cost])
            self.units += block


def fit(draft: Draft, tokenizer: PreTrainedTokenizerBase, room: int, count: Callable[[Body], int]) -> Body:
    """The sample of a draft with the most units whose prompt has at most `room` tokens.

    The size is found by the sums, scaled by what they were off by at the last exact count: in linear time, because the
    number of exact counts does not grow with the length. Every round narrows what is left between a size that fits and
    one that does not, so it ends with any tokenizer.

    Args:
        count: exact tokens of the prompt of a body, all that stands around it included.

    Raises:
        TooShortError: the least of the draft has more than `room` tokens.
    """
    costs = Costs(draft, tokenizer)
    costs.reach(units=draft.least)
    size = fitting = draft.least
    body = best = draft.body(costs.units[:size])
    used = first = count(body)
    if used > room:
        raise TooShortError(used)
    above: int | None = None  # the smallest size known not to fit
    rate = 1.0  # exact tokens per token of the sums
    for _ in range(ROUNDS):
        target = costs.total[size] + (room - used) / rate
        costs.reach(target)
        wanted = bisect_right(costs.total, target) - 1
        if size == fitting and (wanted <= size or room - used <= room * FULL):
            break
        size = max(wanted, fitting + 1)
        if above is not None:
            size = min(size, above - 1)
        if size <= fitting or size > len(costs.units):
            break
        body = draft.body(costs.units[:size])
        used = count(body)
        grown = costs.total[size] - costs.total[draft.least]
        rate = max(0.25, (used - first) / grown)
        if used <= room:
            fitting, best = size, body
        else:
            above = size
    return best
