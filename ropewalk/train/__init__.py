"""Training: position samplers, the network of CLEX, and what they become at inference."""

from ropewalk.train.collator import Example, collate
from ropewalk.train.discretise import Discretised, discretise
from ropewalk.train.network import Network
from ropewalk.train.packs import Mixed
from ropewalk.train.positions import SAMPLERS, Drawn, Sampler
from ropewalk.train.published import read_published
from ropewalk.train.samplers import E2LLM, Clex, Contiguous, PoSE, RandPos

__all__ = [
    "E2LLM",
    "SAMPLERS",
    "Clex",
    "Contiguous",
    "Discretised",
    "Drawn",
    "Example",
    "Mixed",
    "Network",
    "PoSE",
    "RandPos",
    "Sampler",
    "collate",
    "discretise",
    "read_published",
]
