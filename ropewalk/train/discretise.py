"""The learned dynamics of CLEX as standard factor tables that any engine reads."""

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ropewalk.errors import MethodError
from ropewalk.methods import CLEX, LongRoPE
from ropewalk.models.export.rope import longrope, longrope_factors
from ropewalk.rotary import RotarySpec

SAMPLES = 9  # lengths of a bucket at which its one table is compared with theirs


@dataclass(frozen=True)
class Discretised:
    """One bucket of lengths and its factors.

    Attributes:
        length: the longest text of the bucket, tokens.
        shortest: the shortest text that this bucket serves, tokens.
        factors: lambda_i = theta_i / theta_i(t), float32 values, [pairs]; `long_factor` of a configuration.
        rounding: largest |theta'_i / theta_i(t) - 1| of the table that follows from the factors.
        within: largest |ln theta_i(t) - ln theta_i(t')| over the bucket's texts, at nine lengths: how far one table for
            all of them is from a table for each length.
    """

    length: int
    shortest: int
    factors: tuple[float, ...]
    rounding: float
    within: float

    def method(self, spec: RotarySpec) -> LongRoPE:
        """The bucket as `longrope` without an attention factor: the same factors for every length."""
        return LongRoPE(long=self.factors, short=self.factors, original=spec.pretrained_length, attention_factor=1.0)

    def save(self, path: str | Path, spec: RotarySpec) -> None:
        """Write what `longrope:file=PATH` reads, and the rope parameters that engines read."""
        parameters = longrope(list(self.factors), 1.0, self.length / spec.pretrained_length)
        parameters |= {"rope_theta": spec.base, "original_max_position_embeddings": spec.pretrained_length}
        found = {"length": self.length, "shortest": self.shortest, "rounding": self.rounding, "within": self.within}
        Path(path).write_text(json.dumps(parameters | {"discretised": found}, indent=1) + "\n")


def discretise(method: CLEX, spec: RotarySpec, lengths: list[int]) -> list[Discretised]:
    """Factors for buckets of lengths, each bucket with the table of its longest text.

    Args:
        method: trained (or not), filled or not.
        lengths: the longest text of each bucket, tokens, ascending, beyond the trained window.

    Raises:
        MethodError: no lengths, lengths that do not grow, or one outside of the trained window and T times it.
    """
    if not lengths or any(a >= b for a, b in pairwise(lengths)):
        raise MethodError(f"clex: buckets want growing lengths, got {lengths}")
    filled = method.resolve(spec, lengths[-1])
    filled.check_target(spec, lengths[-1])
    if lengths[0] <= spec.pretrained_length:
        raise MethodError(
            f"clex: a bucket of {lengths[0]} tokens lies within the trained window of {spec.pretrained_length}, where "
            "the model's own table holds; begin beyond it"
        )
    lowest = [spec.pretrained_length + 1, *(length + 1 for length in lengths[:-1])]
    return [_bucket(filled, spec, shortest, length) for shortest, length in zip(lowest, lengths, strict=True)]


def _bucket(method: CLEX, spec: RotarySpec, shortest: int, longest: int) -> Discretised:
    exact = method.table(spec, longest).inv_freq.array[0, 0]
    factors = np.array(longrope_factors(spec.base, exact))
    continuous = replace(method, whole=False)
    lengths = np.unique(np.linspace(shortest, longest, SAMPLES).round().astype(int)).tolist()
    tables = [continuous.table(spec, length).inv_freq.array[0, 0] for length in lengths]
    return Discretised(
        length=longest,
        shortest=shortest,
        factors=tuple(factors.tolist()),
        rounding=float(np.abs(np.array(spec.inv_freq) / factors / exact - 1).max()),
        within=max(float(np.abs(np.log(table / exact)).max()) for table in tables),
    )
