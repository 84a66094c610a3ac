"""Question answering without licensed data: invented biographies and an invented ledger. Not part of RULER.

The answer stands in one statement and nowhere else; other statements share names, goods or dates with it.
"""

import itertools
import random
from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.base import Body, Family, Setting
from ropewalk.evaluate.ruler.haystack import Haystack, places
from ropewalk.evaluate.ruler.metrics import Metric, string_match_part
from ropewalk.evaluate.ruler.wording import BIOGRAPHIES, LEDGER, Wording

FIRST_NAMES = ("Ada", "Bruno", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Irma", "Jonas", "Karin", "Leo")
PROFESSIONS = ("baker", "clockmaker", "surveyor", "printer", "midwife", "glazier", "botanist", "ferryman", "notary")
GOODS = (
    "barley",
    "candles",
    "copper wire",
    "ink",
    "lamp oil",
    "linen",
    "nails",
    "paper",
    "rope",
    "salt",
    "tea",
    "wool",
)
MONTHS = ("January", "March", "April", "May", "July", "August", "October", "November")
_ONSETS = ("B", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Br", "Dr", "Gl", "Kr", "St", "Tr")
_MIDDLES = ("a", "e", "i", "o", "u", "al", "en", "ir", "or", "un")
SURNAMES = ("bert", "dak", "lin", "mar", "rik", "som")
TOWNS = ("bury", "ford", "gard", "ham", "stad", "wick")


class Fact(NamedTuple):
    """A statement of the context with its question and answer."""

    statement: str
    query: str
    answer: str


class Synthetic(Family):
    """One asked fact among others of its kind."""

    joint: str

    @property
    def metric(self) -> Metric:
        return string_match_part

    @property
    def between(self) -> str:
        return self.joint

    @abstractmethod
    def facts(self, rng: random.Random) -> Iterator[Fact]:
        """Facts without end; the first is the one that is asked for."""

    def draft(self, setting: Setting, rng: random.Random, index: int) -> Haystack:
        seed = rng.random()
        gold = next(self.facts(random.Random(seed)))

        def lines() -> Iterator[str]:
            facts = self.facts(random.Random(seed))
            next(facts)
            return (fact.statement for fact in facts)

        def finish(context: str) -> Body:
            return Body(context, (gold.answer,), {"query": gold.query}, (gold.statement,))

        return Haystack(lines, self.joint, (gold.statement,), places(rng, 1), finish)

    def frozen(self, setting: Setting, rng: random.Random, index: int, units: int) -> Body:
        raise EvaluationError("synthetic question answering is not in NVIDIA's RULER; use the mode hardened")

    def step(self, length: int) -> int:
        raise EvaluationError("synthetic question answering is not in NVIDIA's RULER; use the mode hardened")


class Biographies(Synthetic):
    """In which town was someone born, or whom did they work for? Many others share a first name or a surname."""

    joint = "\n\n"

    @property
    def wording(self) -> Wording:
        return BIOGRAPHIES

    def facts(self, rng: random.Random) -> Iterator[Fact]:
        first, last = rng.choice(FIRST_NAMES), _invented(rng, SURNAMES)
        town, firm = _invented(rng, TOWNS), _invented(rng, SURNAMES, not_in=last)
        asks_town = rng.random() < 0.5
        names = {(first, last)}
        yield _biography(rng, (first, last), town, firm, asks_town=asks_town)
        for number in itertools.count():
            # Every third has the first name; of the first dozen, every third has the surname.
            name = first if number % 3 == 0 else rng.choice(FIRST_NAMES), _invented(rng, SURNAMES, not_in=firm)
            if number % 3 == 1 and number < len(FIRST_NAMES):
                name = name[0], last
            if name not in names:
                names.add(name)
                other_town, other_firm = _invented(rng, TOWNS, not_in=town), _invented(rng, SURNAMES, not_in=firm)
                yield _biography(rng, name, other_town, other_firm, asks_town=asks_town)


class Ledger(Synthetic):
    """What did a delivery cost? Most others share goods, customer or date with it, and some two of them."""

    joint = "\n"

    @property
    def wording(self) -> Wording:
        return LEDGER

    def facts(self, rng: random.Random) -> Iterator[Fact]:
        asked = _day(rng), _invented(rng, SURNAMES), rng.choice(GOODS)
        price = rng.randint(1000, 9999)
        yield _delivery(rng, asked, price)
        while True:
            drawn = _day(rng), _invented(rng, SURNAMES), rng.choice(GOODS)
            shared = tuple(ours if rng.random() < 0.4 else theirs for ours, theirs in zip(asked, drawn, strict=True))
            cost = rng.randint(1000, 9999)
            if shared != asked and cost != price:
                yield _delivery(rng, shared, cost)


def _biography(rng: random.Random, name: tuple[str, str], town: str, firm: str, *, asks_town: bool) -> Fact:
    whole = " ".join(name)
    statement = (
        f"{whole} was born in {town} in {rng.randint(1801, 1949)} and became a {rng.choice(PROFESSIONS)}. For "
        f"{rng.randint(11, 39)} years {name[0]} worked for the house of {firm}."
    )
    if asks_town:
        return Fact(statement, f"In which town was {whole} born?", town)
    return Fact(statement, f"For which house did {whole} work?", firm)


def _delivery(rng: random.Random, delivery: tuple[str, ...], price: int) -> Fact:
    day, customer, goods = delivery
    statement = f"{day}, to {customer}: {goods}, {rng.randint(11, 99)} crates, {price} crowns."
    return Fact(statement, f"What was the price of the {goods} delivered to {customer} on {day}?", str(price))


def _day(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"


def _invented(rng: random.Random, ends: tuple[str, ...], *, not_in: str | None = None) -> str:
    """A name that nobody has; `not_in`: one that it must not contain, and that it is not itself."""
    while True:
        parts = (_ONSETS, _MIDDLES, _ONSETS, _MIDDLES, ends)
        name = "".join(rng.choice(part) for part in parts).capitalize()
        if not_in is None or not_in.lower() not in name.lower():
            return name
