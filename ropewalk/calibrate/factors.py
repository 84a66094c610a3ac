"""Search one factor per rotary pair: LongRoPE's and LongRoPE2's evolution, and CMA-ES on few knots."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.calibrate.axis import Setting
from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.confirm import FRESH
from ropewalk.calibrate.critical import critical_pair, critical_range
from ropewalk.calibrate.dpe import beside, require_out
from ropewalk.calibrate.evolution_strategy import CMA, usual_population
from ropewalk.calibrate.factor_request import USUAL, FactorRequest, knots_of
from ropewalk.calibrate.genome import RETAINED, TWICE, Critical, Monotone, rounded
from ropewalk.calibrate.held_out import HeldOut, hold_out
from ropewalk.calibrate.knots import Curve, two_places
from ropewalk.calibrate.measured import OBJECTIVES, Measured
from ropewalk.calibrate.minimise import Minimum, Strategy, minimise
from ropewalk.calibrate.population import Evolution
from ropewalk.calibrate.request import RunFile
from ropewalk.calibrate.search_record import about, provenance
from ropewalk.calibrate.settle import Say
from ropewalk.calibrate.spend import divide, settle_readings
from ropewalk.calibrate.trials import Executor
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.methods import NTK, LongRoPE, PositionInterpolation, Yarn
from ropewalk.methods.base import extension_factor
from ropewalk.methods.scaled import ScaledTable
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec

SEARCHED = "searched"


def require(request: FactorRequest, spec: RotarySpec, out: Path) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        EvaluationError: a target within the trained window, knots, a budget or a corpus that is not, a model whose
            pairs all turned in training, or an output that cannot be written.
    """
    require_out(out)
    if request.target_length <= spec.pretrained_length:
        raise EvaluationError(
            f"a target of {request.target_length} tokens needs no factors: the trained window is "
            f"{spec.pretrained_length}; give a longer one"
        )
    if request.search == "cma" and not 2 <= knots_of(request, spec) <= spec.pairs:
        raise EvaluationError(f"{knots_of(request, spec)} knots for {spec.pairs} rotary pairs; give 2 to {spec.pairs}")
    if request.search == "longrope2" and critical_pair(spec) == spec.pairs:
        raise EvaluationError(
            "every rotary pair turned fully in training, so that none is critical; take another search"
        )
    parse_budget(request.budget)
    corpora.load(request.corpus)


def run(
    request: FactorRequest,
    spec: RotarySpec,
    executor: Executor,
    out: Path,
    *,
    workers: int,
    say: Say,
    began: float,
) -> Profile:
    """Search, and compare what was found with PI, NTK and YaRN on documents held out; the profile is not saved yet.

    Killed at any moment, the same call goes on where it stopped: the search is deterministic, and what it asks for
    again is in the executor's store.

    Raises:
        EvaluationError: see `require`; a budget that does not hold the first generation and the comparison.
    """
    require(request, spec, out)
    known = about(spec, request.corpus)
    record = RunFile(beside(out, "run.json"), request, known)
    objective = OBJECTIVES[request.objective or USUAL[request.search]]
    measured = Measured(executor, task=request.task, target_length=request.target_length, seed=request.seed)
    factor = extension_factor(spec, request.target_length)
    seeds = seed_factors(spec, factor)
    documents = range(request.documents)

    def method(setting: Setting) -> str:
        return str(_method(request, spec, setting))

    readings = settle_readings(
        record,
        measured,
        request.budget,
        request.target_length,
        method=method(two_places(seeds["yarn"])),
        documents=documents,
        workers=min(workers, request.documents),
        began=began,
        say=say,
    )
    rivals: dict[str, ScaledTable] = {
        "pi": PositionInterpolation(factor=factor),
        "ntk": NTK(factor=2 * factor),
        "yarn": Yarn(factor=factor),
    }
    first = (
        request.population.population
        if request.search != "cma"
        else len(seeds) + usual_population(knots_of(request, spec))
    )
    candidates, held = divide(
        readings,
        candidates=first,
        documents=len(documents),
        contenders=len(rivals) + 1,
        confirm=request.rule.confirm_documents,
    )

    def price(settings: Sequence[Setting]) -> list[float]:
        return measured.costs([method(each) for each in settings], documents, objective)

    def after(generation: int, cost: float) -> None:
        say(f"generation {generation}: {cost:.4f}")

    found = (_knots if request.search == "cma" else _population)(request, spec, seeds, price, candidates, after)
    say(f"{found.evaluated} candidates in {len(found.generations)} generations: {found.cost:.4f} nats")
    contenders = {SEARCHED: method(found.setting)} | {name: str(rival) for name, rival in rivals.items()}
    compared = hold_out(measured, contenders, range(FRESH, FRESH + held), objective, request.rule)
    say(compared.reason)
    return _profile(request, spec, measured, found, compared, rivals, readings, known)


def _method(request: FactorRequest, spec: RotarySpec, setting: Setting) -> LongRoPE:
    retain = int(setting[-1]) if request.retain and len(setting) > spec.pairs else None
    return LongRoPE(long=setting[: spec.pairs], retain=retain or None)


def seed_factors(spec: RotarySpec, factor: float) -> dict[str, np.ndarray]:
    """Factors per pair that searches start from.

    PI, NTK (of the factor itself, as in the paper), YaRN, and "critical": the factor from LongRoPE2's theoretical
    critical dimension on, NTK before it.
    """
    known: dict[str, ScaledTable] = {
        "pi": PositionInterpolation(factor=factor),
        "ntk": NTK(factor=factor),
        "yarn": Yarn(factor=factor),
    }
    critical = critical_range(spec)[-1]
    powers = np.minimum(1.0, np.arange(spec.pairs) / max(1, critical))
    return {name: one.slowdown(spec) for name, one in known.items()} | {"critical": factor**powers}


def _population(
    request: FactorRequest,
    spec: RotarySpec,
    seeds: dict[str, np.ndarray],
    price: Any,
    candidates: int,
    after: Any,
) -> Minimum:
    factor = extension_factor(spec, request.target_length)
    retain = RETAINED if request.retain else (0,)
    genome = Monotone(factor, retain) if request.search == "longrope" else Critical(spec, factor)
    published = [seeds[name].tolist() for name in ("pi", "ntk", "yarn")]
    strategy = Evolution(genome, published, sizes=request.population, seed=request.seed)
    return minimise(strategy, price, evaluations=candidates, after=after)


def _knots(
    request: FactorRequest,
    spec: RotarySpec,
    seeds: dict[str, np.ndarray],
    price: Any,
    candidates: int,
    after: Any,
) -> Minimum:
    """CMA-ES from the cheapest seed; a seed that stays the cheapest is what was found."""
    top = TWICE * extension_factor(spec, request.target_length)
    curve = Curve(spec.pairs, knots_of(request, spec), top, monotone=True)
    starts = [two_places(np.maximum.accumulate(np.clip(one, 1.0, top))) for one in seeds.values()]
    costs = dict(zip(starts, price(starts), strict=True))
    start = min(costs, key=lambda one: costs[one])
    strategy: Strategy = CMA(curve.encode(start), lambda point: rounded(curve.decode(point)), seed=request.seed)
    found = minimise(strategy, price, evaluations=candidates - len(costs), after=after)
    if costs[start] < found.cost:
        found = Minimum(start, costs[start], found.generations, found.evaluated)
    return Minimum(found.setting, found.cost, found.generations, found.evaluated + len(costs))


def _profile(
    request: FactorRequest,
    spec: RotarySpec,
    measured: Measured,
    found: Minimum,
    compared: HeldOut,
    rivals: dict[str, ScaledTable],
    readings: int,
    known: dict[str, Any],
) -> Profile:
    factor = extension_factor(spec, request.target_length)
    best = _method(request, spec, found.setting)
    assert best.long is not None
    if compared.kept == SEARCHED:
        long: Sequence[float] = best.long
        scaling = math.sqrt(1 + math.log(factor) / math.log(spec.pretrained_length))
    else:
        rival = rivals[compared.kept].resolve(spec, request.target_length)
        long, scaling = rival.slowdown(spec).tolist(), rival.attention_scaling()
    values = {"long": list(long), "factor": factor, "attention_factor": scaling}
    if compared.kept == SEARCHED and best.retain:
        values["retain"] = best.retain
    made = provenance(request.to_json(), spec, measured, readings=readings, known=known) | {
        "kept": compared.kept,
        "searched": {
            "long": list(best.long),
            "retain": best.retain or 0,
            "critical": int(found.setting[-1]) if request.search == "longrope2" else None,
            "cost": found.cost,
            "candidates": found.evaluated,
            "generations": list(found.generations),
        },
        "theoretical_critical": critical_pair(spec),
        "held_out": compared.to_json(),
    }
    return Profile("longrope", Fingerprint.of(spec), values, {}, made)
