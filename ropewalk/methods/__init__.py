"""Methods: one frozen dataclass per way to extend the context, found in `METHODS`, read from text by `parse`."""

from ropewalk.errors import MethodError
from ropewalk.methods.base import METHODS, FrequencyMethod, Method, PositionMethod
from ropewalk.methods.by_parts import Llama3, NTKByParts
from ropewalk.methods.clex import CLEX
from ropewalk.methods.combined import Combined
from ropewalk.methods.dca import DualChunkAttention
from ropewalk.methods.dpe import DPE
from ropewalk.methods.grammar import parse_one
from ropewalk.methods.leaky_rerope import LeakyReRoPE
from ropewalk.methods.longrope import LongRoPE
from ropewalk.methods.ntk import NTK, DynamicNTK, NTKLiu
from ropewalk.methods.pi import PositionInterpolation
from ropewalk.methods.rerope import ReRoPE
from ropewalk.methods.self_extend import SelfExtend
from ropewalk.methods.string import String
from ropewalk.methods.unchanged import Unchanged
from ropewalk.methods.yarn import Yarn, YarnLambda, YarnPaper


def parse(text: str) -> Method:
    """The method that `text` names: `name`, `name:key=value,...`, or `position+frequency`.

    Raises:
        MethodError: unknown name or parameter (with the nearest names), a value of the wrong type, a wrong pair.
    """
    parts = []
    for part in text.split("+"):
        name, _, parameters = part.strip().partition(":")
        parts.append(parse_one(parameters, METHODS.get(name.strip())))
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 2:
        raise MethodError(f"{text!r} joins {len(parts)} methods; join one position method and one frequency method")
    position, frequency = parts
    return Combined(position=position, frequency=frequency)  # type: ignore[arg-type]


__all__ = [
    "CLEX",
    "DPE",
    "METHODS",
    "NTK",
    "Combined",
    "DualChunkAttention",
    "DynamicNTK",
    "FrequencyMethod",
    "LeakyReRoPE",
    "Llama3",
    "LongRoPE",
    "Method",
    "NTKByParts",
    "NTKLiu",
    "PositionInterpolation",
    "PositionMethod",
    "ReRoPE",
    "SelfExtend",
    "String",
    "Unchanged",
    "Yarn",
    "YarnLambda",
    "YarnPaper",
    "parse",
]
