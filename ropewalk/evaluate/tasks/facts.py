"""The facts that the needle task hides: each kind has a sentence of its own, and answers of one word.

Facts of one kind ("the code for apple is 48213") defeat small models inside their trained window already: they fail at
binding, not at position. One fact of each of ten kinds leaves position as the only difficulty.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A sentence that lacks its last word.

    Attributes:
        prefix: the sentence up to the answer, without the space before it; also the query.
        candidates: the words that can complete it, none of them the beginning of another.
    """

    prefix: str
    candidates: tuple[str, ...]


def _kind(prefix: str, candidates: str) -> Kind:
    return Kind(prefix, tuple(candidates.split()))


KINDS: tuple[Kind, ...] = (
    _kind(
        "Sarah's favorite color is",
        "red blue green yellow purple orange pink brown black white gray silver violet",
    ),
    _kind(
        "The statue in the park is made of",
        "stone wood glass iron copper marble clay steel gold bronze ice plastic brass",
    ),
    _kind(
        "The pet that lives next door to the baker is a",
        "dog cat horse rabbit parrot turtle snake mouse pig goat lizard hamster duck",
    ),
    _kind(
        "The musician on the corner of Mill Street plays the",
        "violin piano guitar flute drums trumpet harp cello organ banjo saxophone bass accordion",
    ),
    _kind(
        "The city where Daniel was born is",
        "Paris London Berlin Madrid Rome Tokyo Cairo Vienna Dublin Boston Chicago Moscow Athens",
    ),
    _kind(
        "The fruit that Emma carries in her bag is a",
        "banana lemon peach pear mango cherry melon plum grape lime coconut pineapple fig",
    ),
    _kind(
        "The person who won the chess tournament is called",
        "Peter Maria Thomas Helen George Laura Frank Alice Victor Julia Oscar Nancy Henry",
    ),
    _kind(
        "The sport that the new teacher practices is",
        "football tennis swimming boxing golf hockey rugby cricket basketball skiing baseball cycling running",
    ),
    _kind(
        "The month in which the old bridge was closed is",
        "January February March April May June July August September October November December",
    ),
    _kind(
        "The drink that the captain orders every evening is",
        "coffee tea milk water beer wine juice cider whiskey rum vodka lemonade soda",
    ),
)
