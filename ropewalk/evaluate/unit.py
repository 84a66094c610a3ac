"""What a sweep measures: units of one document under one method, and what all of them share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora

# What a comparison is held against, see `ropewalk.evaluate.controls`.
CONTROLS = ("truncate-middle", "bm25", "needle-only")
# Seeds of documents are seed * SEEDS + index, so that runs with different seeds share no document.
SEEDS = 1000


@dataclass(frozen=True)
class Setup:
    """What all units of a sweep have in common; plain JSON.

    Attributes:
        corpus: the text, see `ropewalk.evaluate.corpus`.
        backend: as for `ropewalk.extend`.
        template, mode: of RULER's tasks, see `ropewalk.evaluate.ruler.sample.Generator`.
        squad, hotpotqa: paths of the user's question files, or None.
        evaluator: model source that finds LongPPL's key tokens; None: the evaluated model, in its window.
    """

    corpus: str = corpora.DEFAULT
    backend: str = "auto"
    template: str = "base"
    mode: str = "hardened"
    squad: str | None = None
    hotpotqa: str | None = None
    evaluator: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Unit:
    """One document, read once with one method (or by the stock model after a control shortened it).

    Attributes:
        task, method, control: by name; `control` is "" or as in `ropewalk.evaluate.controls`.
        length: of the document with its answers, tokens.
        target_length: tokens that the method is set up for.
        seed, document: of the run, and index in it.
        extra: it was not asked for but added for comparison; where it cannot be, it is left out with a remark.
    """

    task: str
    length: int
    method: str
    control: str
    target_length: int
    seed: int
    document: int
    extra: bool = False

    @property
    def label(self) -> str:
        """The method's name, or the control's."""
        return self.control or self.method

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def document_seed(seed: int, index: int) -> int:
    """Seed of document `index` (below SEEDS) of a run."""
    return seed * SEEDS + index


def read_seeds(text: str) -> list[int]:
    """The seeds of "0,1,2".

    Raises:
        EvaluationError: not whole numbers of 0 or more, separated by commas.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise EvaluationError(f"{text!r} is no list of seeds; give whole numbers of 0 or more, such as 0,1,2")
    return list(dict.fromkeys(map(int, parts)))


def list_units(
    tasks: Sequence[str],
    methods: Sequence[str],
    lengths: Sequence[int],
    *,
    samples: int,
    seeds: Sequence[int],
    target_length: int | None = None,
    window: int | None = None,
) -> list[Unit]:
    """Every task, length, seed, document and method, in the order of work.

    Short lengths come first, and all methods of one document before the next: a sweep that is stopped anywhere leaves
    pairs.

    Args:
        target_length: tokens; None sets every method up for the largest of `lengths`, as it would be deployed: what
            attaching it costs short texts then shows in the same table.
        window: the trained window, tokens; given, what a comparison needs is added: the stock model at every length,
            CONTROLS beyond the window, and, where every length is beyond it, the window itself, which shows what the
            stock model does inside it and what attaching a method costs there.

    Raises:
        EvaluationError: nothing to do, or more documents than a seed has.
    """
    if samples < 1 or not (tasks and methods and lengths and seeds):
        raise EvaluationError("nothing to evaluate; give one task, method and length or more, and 1 or more samples")
    if samples > SEEDS:
        raise EvaluationError(f"{samples} documents of one seed, {SEEDS} at most; spread them over more seeds")
    target = max(lengths) if target_length is None else target_length
    if target < max(lengths):
        raise EvaluationError(
            f"methods set up for {target} tokens cannot be tested at {max(lengths)}; raise the target length to that"
        )
    asked = {(method, ""): False for method in methods}
    guards = set() if window is None or min(lengths) <= window else {window}
    if window is not None:
        asked = {("none", ""): True} | asked
    beyond = {("none", control): True for control in CONTROLS}
    return [
        Unit(task, length, method, control, target, seed, document, extra or length in guards)
        for length in sorted({*lengths, *guards})
        for seed in seeds
        for document in range(samples)
        for task in dict.fromkeys(tasks)
        for (method, control), extra in (asked | (beyond if window is not None and length > window else {})).items()
    ]
