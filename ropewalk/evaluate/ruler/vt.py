"""Variable tracking: a chain of five assignments in noise, after a worked example."""

import itertools
import random
import string
from dataclasses import dataclass

from ropewalk.evaluate.ruler.base import Body, Family, Setting
from ropewalk.evaluate.ruler.haystack import Haystack, endless, places
from ropewalk.evaluate.ruler.metrics import Metric, string_match_all
from ropewalk.evaluate.ruler.wording import NOISE, VARIABLES, Wording

# The example has at most this many tokens, the fewest lines that its chain needs apart (variable_tracking.py, c3f5e3b).
SHOT_TOKENS = 500


@dataclass(frozen=True)
class VariableTracking(Family):
    """`hops` + 1 names that all get one number, each from the one before."""

    hops: int = 4
    # NVIDIA's generator never ends with fewer lines than statements.
    fewest = 5

    @property
    def wording(self) -> Wording:
        return VARIABLES

    @property
    def metric(self) -> Metric:
        return string_match_all

    @property
    def between(self) -> str:
        return r"\n"

    def step(self, length: int) -> int:
        return 5 if length < 4096 else 10

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        names, value, chain = self._chain(rng, letters=5)
        context = _scattered(chain, units, rng)
        return self._body(context, names, value, chain, self._shot(setting, rng, setting.fixed()))

    def draft(self, setting: Setting, rng: random.Random, index: int) -> Haystack:
        """The statements stand anywhere, in order; NVIDIA keeps a line of noise between any two."""
        names, value, chain = self._chain(rng, letters=5)
        shot = self._shot(setting, rng, rng)
        return Haystack(
            lambda: endless((" ".join(NOISE),), 0),
            "\n",
            tuple(chain),
            places(rng, len(chain), ordered=True),
            lambda context: self._body(context, names, value, chain, shot),
        )

    def _body(self, context: str, names: list[str], value: str, chain: list[str], shot: str) -> Body:
        return Body(context, tuple(names), self._fields(value), tuple(chain), shot)

    def _fields(self, value: str) -> dict[str, str]:
        return {"query": value, "count": str(self.hops + 1)}

    def _chain(self, rng: random.Random, *, letters: int) -> tuple[list[str], str, list[str]]:
        """Names, the value, and the assignments; all but the first end with a space, as NVIDIA's do."""
        names: list[str] = []
        while len(names) <= self.hops:
            name = "".join(rng.choices(string.ascii_uppercase, k=letters))
            if name not in names:
                names.append(name)
        value = str(rng.randrange(10000, 99999))
        links = [f"VAR {name} = VAR {before} " for before, name in itertools.pairwise(names)]
        return names, value, [f"VAR {names[0]} = {value}", *links]

    def _shot(self, setting: Setting, rng: random.Random, layout: random.Random) -> str:
        """The worked example: names of three letters, as many lines of noise as SHOT_TOKENS hold.

        Where not even the fewest lines fit, NVIDIA's generator never ends; here they stand.

        Args:
            rng: of the names and the number; `layout`: of their places.
        """
        names, value, chain = self._chain(rng, letters=3)
        seed, fields = layout.random(), self._fields(value)

        def example(lines: int) -> str:
            context = _scattered(chain, lines, random.Random(seed))
            return VARIABLES.task.format(context=context, **fields) + VARIABLES.prefix.format(**fields)

        fewest = len(chain)
        base = setting.count(example(fewest))
        line = max(1, setting.count(example(fewest + 1)) - base)
        return f"{example(fewest + max(0, (SHOT_TOKENS - base) // line))} {' '.join(names)}\n\n"


def _scattered(chain: list[str], lines: int, rng: random.Random) -> str:
    """Lines of noise with the chain in order, no two of it before the same line."""
    mixed = [" ".join(NOISE)] * lines
    for shift, spot in enumerate(sorted(rng.sample(range(lines), len(chain)))):
        mixed.insert(spot + shift, chain[shift])
    return "\n".join(mixed)
