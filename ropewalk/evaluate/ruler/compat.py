"""The size of a prompt as NVIDIA's generator at c3f5e3b finds it: one search for all samples, then shrinking each.

A search probes with samples drawn afresh, and a sample that is too long loses a fixed number of units, so prompts are
up to a step short. Where no step is left to lose, NVIDIA's loop never ends; here that is an error.
"""

from collections.abc import Callable
from dataclasses import replace

from ropewalk.evaluate.ruler.base import Body, Family
from ropewalk.evaluate.ruler.fit import TooShortError

Draw = Callable[[int], Body]
Count = Callable[[Body], int]

# NVIDIA's search for frequent words begins with one word per so many tokens.
CODED_LETTERS = 6


def search(family: Family, length: int, room: int, probe: Draw, count: Count) -> int:
    """Units for all samples of a task at a length.

    Args:
        length: tokens with the answer; `room`: without it.
        probe: a sample of a number of units, a fresh one at every call; of frequent words, all with one vocabulary.
        count: exact tokens of its prompt.
    """
    step = family.step(length)
    if family.grows:
        units = room // CODED_LETTERS
        # A tokenizer that drops unknown words would let it grow for ever; no word has less than half a token.
        while count(probe(units)) < room and units < 2 * room:
            units += step
        return max(step, units - step)
    first = family.probe or step
    # Without the example of variable tracking: a bound that counts it would keep long prompts an eighth too short.
    each = count(replace(probe(first), shot="")) / first
    low, high, found = step, max(int(length / each * family.slack), 2 * step), step
    while low <= high:
        middle = (low + high) // 2
        if count(probe(middle)) <= room:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found


def shrink(family: Family, length: int, room: int, units: int, draw: Draw, count: Count) -> Body:
    """A sample of `units`, or of fewer by whole steps, that fits; arguments as of `search`.

    Raises:
        TooShortError: a step of units or fewer does not.
    """
    step = family.step(length)
    while True:
        body = draw(units)
        used = count(body)
        if used <= room:
            return body
        if units <= max(step, family.fewest):
            raise TooShortError(used)
        units = max(family.fewest, units - step)
