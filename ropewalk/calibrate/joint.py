"""Search all scales of DPE at once, with the window and the gain, from a detected or the uniform profile on."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.calibrate.axis import Setting, baseline
from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.confirm import FRESH
from ropewalk.calibrate.dpe import beside, require_out
from ropewalk.calibrate.evolution_strategy import CMA, usual_population
from ropewalk.calibrate.held_out import HeldOut, hold_out
from ropewalk.calibrate.measured import OBJECTIVES, Measured
from ropewalk.calibrate.minimise import Minimum, minimise
from ropewalk.calibrate.request import CORPUS, RunFile
from ropewalk.calibrate.rule import Rule
from ropewalk.calibrate.search_record import about, provenance
from ropewalk.calibrate.settle import Say
from ropewalk.calibrate.space import WIDEST_SCALE, Space
from ropewalk.calibrate.spend import divide, settle_readings
from ropewalk.calibrate.trials import Executor
from ropewalk.errors import EvaluationError, ProfileError
from ropewalk.evaluate import corpus as corpora
from ropewalk.methods.two_bands import local_window
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec

# Documents of a detection and of its confirmation come before these: what is found and compared here is read on others.
FIRST, HELD_OUT = FRESH // 2, FRESH + FRESH // 2
SEARCHED, DETECTED, UNIFORM = "joint", "detected", "uniform"


@dataclass(frozen=True)
class JointRequest:
    """A joint search; plain values only.

    Attributes:
        start: path of the profile that `ropewalk calibrate dpe` left; its groups, text of the search and scales are
            taken over.
        monotone: scales never fall from the fastest group to the slowest.
        objective: of `measured.OBJECTIVES`; both, because the best loss and the best retrieval can lie apart.
        documents: that every candidate reads.
        population: candidates of a generation; None: 4 + 3 ln(values), the usual number.
        others: as in `ropewalk.calibrate.request.Request`.
    """

    model: str
    start: str
    target_length: int
    budget: str
    monotone: bool = False
    objective: str = "both"
    documents: int = 2
    population: int | None = None
    task: str = "needle"
    corpus: str = CORPUS
    seed: int = 0
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise EvaluationError(f"unknown objective {self.objective!r}; give one of {', '.join(OBJECTIVES)}")

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def target_of(start: Path) -> int:
    """Tokens that a profile to start from was calibrated for.

    Raises:
        ProfileError: it is no profile of a calibration of `dpe`.
    """
    profile = Profile.load(start)
    if profile.kind != "dpe" or "axes" not in profile.provenance or profile.target_length is None:
        raise ProfileError(f"{str(start)!r} was not made by `ropewalk calibrate dpe`; give the profile that it leaves")
    return profile.target_length


def starting(request: JointRequest, spec: RotarySpec) -> tuple[Space, dict[str, Setting]]:
    """The space of a request, and the detected and the uniform setting in it.

    Raises:
        ProfileError: see `target_of`; a profile of another model.
    """
    path = Path(request.start)
    target_of(path)
    profile = Profile.load(path)
    profile.require(kind="dpe", spec=spec)
    axes = profile.provenance["axes"]
    grouped = [(curve["axis"]["pairs"], curve["chosen"]) for curve in axes if curve["axis"]["pairs"]]
    extra: dict[str, float] = {curve["axis"]["field"]: curve["chosen"] for curve in axes if not curve["axis"]["pairs"]}
    base = baseline(spec, request.target_length)
    window = local_window(spec, request.target_length)[0]
    space = Space(
        spec,
        tuple((first, last) for (first, last), _ in grouped),
        window,
        WIDEST_SCALE * base,
        request.monotone,
        {"profile": path} if profile.arrays else {},
    )
    detected = tuple(float(chosen) for _, chosen in grouped)
    known = {
        DETECTED: (*detected, float(extra.get("window") or window), float(extra.get("logit_scale") or 1.0)),
        UNIFORM: (*(base for _ in grouped), float(window), 1.0),
    }
    return space, known


def require(request: JointRequest, spec: RotarySpec, out: Path) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        ProfileError: see `starting`.
        EvaluationError: a budget or a corpus that is not, or an output that cannot be written or is the start itself.
    """
    require_out(out)
    if out.resolve() == Path(request.start).resolve():
        raise EvaluationError(f"{request.start!r} is where the search starts; give another --out")
    starting(request, spec)
    parse_budget(request.budget)
    corpora.load(request.corpus)


def run(
    request: JointRequest, spec: RotarySpec, executor: Executor, out: Path, *, workers: int, say: Say, began: float
) -> Profile:
    """Search, and compare with the detected and the uniform profile on documents held out; not saved yet.

    Killed at any moment, the same call goes on where it stopped: the search is deterministic, and what it asks for
    again is in the executor's store.

    Raises:
        EvaluationError, ProfileError: see `require`; a budget that does not hold one generation and the comparison.
    """
    require(request, spec, out)
    space, known = starting(request, spec)
    facts = about(spec, request.corpus) | {"start_sha256": hashlib.sha256(Path(request.start).read_bytes()).hexdigest()}
    record = RunFile(beside(out, "run.json"), request, facts)
    measured = Measured(executor, task=request.task, target_length=request.target_length, seed=request.seed)
    objective = OBJECTIVES[request.objective]
    documents = range(FIRST, FIRST + request.documents)
    readings = settle_readings(
        record,
        measured,
        request.budget,
        request.target_length,
        method=space.method(known[DETECTED]),
        documents=documents,
        workers=min(workers, request.documents),
        began=began,
        say=say,
    )
    population = request.population or usual_population(len(known[DETECTED]))
    contenders = len(known) + 1
    candidates, held = divide(
        readings,
        candidates=population + len(known),
        documents=request.documents,
        contenders=contenders,
        confirm=request.rule.confirm_documents,
    )
    say(f"{candidates} candidates, {population} a generation, on {request.documents} documents each; {held} held out")

    def price(settings: Sequence[Setting]) -> list[float]:
        return measured.costs([space.method(each) for each in settings], documents, objective)

    # A detection's winners may have lost their confirmation: the search starts from what is better here.
    own = dict(zip(known, price(list(known.values())), strict=True))
    first = min(own, key=lambda name: own[name])
    told = ", ".join(f"{name} {cost:.4f}" for name, cost in own.items())
    strategy = CMA(space.encode(known[first]), space.decode, seed=request.seed, population=population)
    found = minimise(
        strategy,
        price,
        evaluations=candidates - len(known),
        after=lambda generation, cost: say(f"generation {generation}: {cost:.4f} ({told})"),
    )
    if own[first] <= found.cost:  # rounding or a bound of the space may have moved the start
        found = Minimum(known[first], own[first], found.generations, found.evaluated)
    methods = {SEARCHED: space.method(found.setting)} | {name: space.method(each) for name, each in known.items()}
    compared = hold_out(measured, methods, range(HELD_OUT, HELD_OUT + held), objective, request.rule)
    say(compared.reason)
    return _profile(request, space, measured, known | {SEARCHED: found.setting}, found, compared, readings, facts)


def _profile(
    request: JointRequest,
    space: Space,
    measured: Measured,
    settings: dict[str, Setting],
    found: Minimum,
    compared: HeldOut,
    readings: int,
    facts: dict[str, Any],
) -> Profile:
    made = provenance(request.to_json(), space.spec, measured, readings=readings, known=facts) | {
        "kept": compared.kept,
        "groups": [list(group) for group in space.groups],
        "settings": {name: list(each) for name, each in settings.items()},
        "candidates": found.evaluated,
        "cost": found.cost,
        "generations": list(found.generations),
        "held_out": compared.to_json(),
    }
    return Profile(
        "dpe",
        Fingerprint.of(space.spec),
        space.values(settings[compared.kept]),
        Profile.load(request.start).arrays,
        made,
    )
