"""What a report reads in the details of rows: depths of what was sought, loss by position, empty answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ropewalk.evaluate.row import Row

# Up to here the depths of a grid are shown one by one; random depths are pooled into tenths.
GRID_DEPTHS = 12
TENTHS = tuple(f"{10 * i}–{10 * (i + 1)}%" for i in range(10))

# (stretch's first token, last token, mean loss over documents in nats, documents)
Stretch = tuple[int, int, float, int]


@dataclass(frozen=True)
class DepthMap:
    """Scores by depth and length.

    Attributes:
        depths: names of the rows, from the start of the prompt to its end.
        cells: (index of the depth, length) -> (mean score, how many scores).
    """

    depths: tuple[str, ...]
    cells: dict[tuple[int, int], tuple[float, int]]


def depth_map(rows: Iterable[Row]) -> DepthMap | None:
    """The scores of which the details tell the depth; None where there are none.

    That are questions with one answer in the text each: facts of a needle document, points of a grid, needles, RULER's
    tasks with a single gold statement. A prompt that a control shortened has no depths.
    """
    found = [(row.key.length, depth, score) for row in rows if not row.key.control for depth, score in _depths(row)]
    if not found:
        return None
    distinct = sorted({depth for _, depth, _ in found})
    grid = len(distinct) <= GRID_DEPTHS
    groups: dict[tuple[int, int], list[float]] = {}
    for length, depth, score in found:
        place = distinct.index(depth) if grid else min(9, int(10 * depth))
        groups.setdefault((place, length), []).append(score)
    names = tuple(f"{100 * depth:.3g}%" for depth in distinct) if grid else TENTHS
    return DepthMap(names, {place: (sum(group) / len(group), len(group)) for place, group in groups.items()})


def loss_by_position(rows: Sequence[Row]) -> list[Stretch]:
    """The mean over documents of the loss at each stretch of positions; empty where the details have none.

    Documents of one length differ by a few tokens: stretches that begin alike are one, to the end of the longest.
    In a prompt that a control shortened, positions are others.
    """
    groups: dict[int, list[tuple[int, float]]] = {}
    for row in (row for row in rows if not row.key.control):
        for first, last, loss in row.details.get("loss_by_position", ()):
            groups.setdefault(first, []).append((last, loss))
    return [
        (first, max(last for last, _ in found), fmean(loss for _, loss in found), len(found))
        for first, found in sorted(groups.items())
    ]


def trained_window(rows: Iterable[Row]) -> int | None:
    """The window that the model was trained on, tokens, where all details that tell it agree; controls do."""
    told = {row.details.get("window" if row.key.control else "pretrained_length") for row in rows} - {None}
    return told.pop() if len(told) == 1 else None


def empty_answers(row: Row) -> tuple[int, int]:
    """How many generated answers of a row hold nothing but white space, and how many there are.

    Needle answers are generated only as far as it takes to decide, so they are not counted.
    """
    said = [one["text"] for one in row.details.get("said", ())]
    said += [row.details["prediction"]] if "prediction" in row.details else []
    return sum(not text.strip() for text in said), len(said)


def _depths(row: Row) -> list[tuple[float, float]]:
    """(depth from 0 to 1, score) of a row, rounded to a thousandth; empty where they do not pair up."""
    answers = [one for one in row.details.get("answers", ()) if "retrieved" in one]
    depths = row.details.get("depths", [1 - one["distance"] / row.reached for one in answers if one.get("distance")])
    values = [float(one["retrieved"]) for one in answers] if answers else list(row.scores)
    if len(depths) != len(values):
        return []
    pairs = zip(depths, values, strict=True)
    return [(round(min(1.0, max(0.0, depth)), 3), value) for depth, value in pairs if depth is not None]
