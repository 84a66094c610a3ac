"""The position sampler of a run from its name, with what the model and the target say filled in."""

import math
from dataclasses import replace

from ropewalk.errors import TrainingError
from ropewalk.methods import CLEX, Method
from ropewalk.rotary import RotarySpec
from ropewalk.train.packs import Mixed
from ropewalk.train.positions import SAMPLERS, Sampler
from ropewalk.train.samplers import E2LLM, Clex, Contiguous, PoSE, RandPos

WINDOWS = 16  # T of CLEX when nothing says how long texts may get: the authors' value


def target_of(method: Method, spec: RotarySpec, asked: int | None) -> int:
    """Tokens that a run prepares for: as asked, or what the method reaches as it was given; for CLEX 16 windows."""
    if asked is not None:
        return asked
    if isinstance(method, CLEX) and method.max_factor is None and method.profile is None:
        return WINDOWS * spec.pretrained_length
    return method.natural_length(spec)


def method_for(method: Method, spec: RotarySpec, target_length: int) -> Method:
    """The method as it is trained: T of CLEX is what the target needs unless it is given."""
    if isinstance(method, CLEX) and method.max_factor is None and method.profile is None:
        return replace(method, max_factor=math.ceil(target_length / spec.pretrained_length))
    return method


def sampler_for(
    name: str | None,
    method: Method,
    spec: RotarySpec,
    target_length: int,
    *,
    chunks: int = 2,
    short: float = 0.3,
) -> Sampler:
    """The sampler of this name, or the one that goes with the method: `clex` with clex, else `contiguous`.

    Raises:
        TrainingError: an unknown name, or a method and a sampler that do not go together: CLEX draws positions and
            table together, and E2-LLM brings its own scale.
    """
    bound = isinstance(method, CLEX)
    name = name or ("clex" if bound else "contiguous")
    kind = SAMPLERS.get(name)
    if bound != (kind is Clex):
        raise TrainingError(
            f"{method.name} and the positions of {name!r} do not go together: clex draws its positions and its "
            "table at once, and only clex does"
        )
    trained = spec.pretrained_length
    if kind is E2LLM and method.name != "none":
        raise TrainingError(f"e2-llm scales positions itself; train it with the method none, got {method}")
    made: dict[type[Sampler], Sampler] = {
        Contiguous: Contiguous(),
        PoSE: PoSE(target_length=target_length, chunks=chunks),
        RandPos: RandPos(target_length=target_length),
        Mixed: Mixed(pretrained_length=trained, target_length=target_length, short=short),
        E2LLM: E2LLM(pretrained_length=trained, max_scale=max(1, math.ceil(target_length / trained))),
    }
    if isinstance(method, CLEX):
        filled = method.resolve(spec, target_length)
        assert filled.max_factor is not None
        made[Clex] = Clex(pretrained_length=trained, max_factor=filled.max_factor)
    return made[kind]
