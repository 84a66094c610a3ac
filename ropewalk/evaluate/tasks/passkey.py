"""Passkey: one number in repeated noise."""

import random
from collections.abc import Callable, Iterable

from ropewalk.evaluate.ruler.haystack import endless
from ropewalk.evaluate.ruler.wording import NOISE
from ropewalk.evaluate.tasks.base import TASKS, Question
from ropewalk.evaluate.tasks.haystack import Frame, Needle
from ropewalk.evaluate.tasks.hidden import FirstInteger
from ropewalk.evaluate.unit import SEEDS

# Ten generated tokens, as in YaRN's and LongRoPE's evaluation.
NEW_TOKENS = 10
STRATA = 10


class Passkey(FirstInteger):
    """The pass key of landmark attention (arXiv 2305.16300), as YaRN and LongRoPE ask for it, in its wording.

    The score is 1 where the first integer generated is the key. It differs from theirs where theirs cannot be compared:
    the key always has five digits (theirs one to five, so that chance and difficulty varied), the length is exact
    (theirs was guessed from characters), noise stands one unit a line and is cut at words, and of every ten consecutive
    documents of a run one has its key in each tenth of the text, in random order and at a random place there.
    """

    name = "passkey"
    protocol = "passkey/1"
    metric = "retrieved"

    def frame(self, rng: random.Random, seed: int) -> Frame:
        key = str(rng.randint(10_000, 99_999))
        needle = Needle(f"The pass key is {key}. Remember it. {key} is the pass key.", key, self._depth(rng, seed))
        return Frame(
            "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz "
            "you about the important information there.\n",
            "\n",
            "\n",
            (needle,),
            (Question("What is the pass key? The pass key is", "What is the pass key?", (key,), NEW_TOKENS),),
        )

    def lines(self, rng: random.Random, corpus: str) -> tuple[int, Callable[[], Iterable[str]]]:
        """The five sentences of noise, over and over; no corpus is read."""
        return 0, lambda: endless((" ".join(NOISE),), 0)

    def _depth(self, rng: random.Random, seed: int) -> float:
        run, index = divmod(seed, SEEDS)
        block, place = divmod(index, STRATA)
        order = random.Random(f"{self.protocol} depths {run} {block}").sample(range(STRATA), STRATA)
        return (order[place] + rng.random()) / STRATA


TASKS.register("passkey")(Passkey())
