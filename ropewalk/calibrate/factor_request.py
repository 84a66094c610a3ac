"""What a search for factors of `longrope` was asked for."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ropewalk.calibrate.measured import OBJECTIVES
from ropewalk.calibrate.population import Sizes
from ropewalk.calibrate.request import CORPUS
from ropewalk.calibrate.rule import Rule
from ropewalk.errors import EvaluationError
from ropewalk.rotary import RotarySpec

Search = Literal["cma", "longrope", "longrope2"]
SEARCHES: tuple[str, ...] = get_args(Search)
# What each search minimises unless it is told otherwise: the published ones as published.
USUAL = {"cma": "both", "longrope": "text", "longrope2": "needle"}
KNOTS = 8


@dataclass(frozen=True)
class FactorRequest:
    """A search for factors of `longrope`; plain values only.

    Attributes:
        model, target_length, budget, task, corpus, seed, rule: as in `ropewalk.calibrate.request.Request`.
        search: "cma" (on `knots`), "longrope" or "longrope2" (a population, as published).
        objective: of `measured.OBJECTIVES`; "" for the usual one of the search: loss of the text for LongRoPE, of the
            needles' answers for LongRoPE2, both for CMA-ES.
        documents: that every candidate reads (LongRoPE: 5 or 3, LongRoPE2: 10).
        knots: of CMA-ES; None: KNOTS, or one for every pair where there are fewer.
        population: sizes of the published search.
        retain: search how many start tokens keep their angles too, with "longrope".
    """

    model: str
    target_length: int
    budget: str
    search: str = "cma"
    objective: str = ""
    documents: int = 2
    knots: int | None = None
    population: Sizes = field(default_factory=Sizes)
    retain: bool = False
    task: str = "needle"
    corpus: str = CORPUS
    seed: int = 0
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise EvaluationError(f"unknown search {self.search!r}; give one of {', '.join(SEARCHES)}")
        if self.objective not in ("", *OBJECTIVES):
            raise EvaluationError(f"unknown objective {self.objective!r}; give one of {', '.join(OBJECTIVES)}")
        if self.retain and self.search != "longrope":
            raise EvaluationError(f"{self.search} does not search start tokens to retain; take search longrope")

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def knots_of(request: FactorRequest, spec: RotarySpec) -> int:
    """Of CMA-ES."""
    return min(KNOTS, spec.pairs) if request.knots is None else request.knots
