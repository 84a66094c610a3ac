"""What llama.cpp makes of a GGUF's rotary metadata, and the metadata that comes nearest to a table.

Frequencies b^(-2i/d), divided by one factor (`linear`), or blended between both by a ramp over the index (`yarn`, whose
attention factor 0.1 ln s + 1 is multiplied by `attn_factor`). The ends of the ramp follow from the original context
length alone: `yarn_beta_fast` and `yarn_beta_slow` are read for Grok and Mistral 3 only, elsewhere they are 32 and 1.
Read in the llama.cpp of llama-cpp-python 0.3.36: llama-model.cpp, llama-context.cpp, src/models, ggml's rope_yarn.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.models.export.buckets import Bucket
from ropewalk.rotary import RotarySpec, default_inv_freq

EXACT = 1e-6  # relative; float32 metadata and llama.cpp's powers in float32
BETAS = (32.0, 1.0)


@dataclass(frozen=True)
class Form:
    """One way to tell llama.cpp.

    Attributes:
        words: for people.
        freq_base: b.
        scaling: values under `rope.scaling.`.
        difference: largest relative error of a frequency.
        factors: a factor for each pair, float32 [pairs], where the architecture loads them.
    """

    words: str
    freq_base: float
    scaling: dict[str, Any]
    difference: float
    factors: np.ndarray | None = field(default=None, compare=False)


def factors(spec: RotarySpec, bucket: Bucket) -> Form:
    """Any table, as one factor for each pair: llama.cpp divides b^(-2i/d) by them."""
    divisors = (default_inv_freq(spec.base, spec.rotary_dim) / bucket.table.theta().numpy()).astype(np.float32)
    scaling = {"type": "none", "attn_factor": bucket.table.attention_scaling}
    return Form("one factor for each pair", spec.base, scaling, 0.0, divisors)


def nearest(spec: RotarySpec, bucket: Bucket) -> Form:
    """The best of metadata alone: another base with one factor, or YaRN over every ramp; exact forms among them."""
    wanted = bucket.table.theta().numpy()
    factor = float((default_inv_freq(spec.base, spec.rotary_dim) / wanted).max())
    lengths = {ramp_ends(spec, length): length for length in _lengths(spec)}
    forms = [rebased(spec, bucket), *(yarn(spec, bucket, factor, length) for length in lengths.values())]
    return min(forms, key=lambda form: form.difference)


def _lengths(spec: RotarySpec) -> list[int]:
    """Original context lengths in steps of 2 % around the trained one, which comes last and wins its ramp."""
    steps = np.arange(-300, 301)  # from 1/400 of it to 400 times
    return [*(max(2, round(spec.pretrained_length * 1.02**step)) for step in steps.tolist()), spec.pretrained_length]


def rebased(spec: RotarySpec, bucket: Bucket) -> Form:
    """theta_i = b'^(-2i/d) / s, b' and s by least squares over ln theta."""
    wanted = bucket.table.theta().numpy()
    index = 2 * np.arange(spec.pairs) / spec.rotary_dim
    slope, offset = np.polyfit(index, np.log(wanted), 1)
    base, factor = math.exp(-slope), math.exp(-offset)
    scaling = {"type": "linear", "factor": factor, "attn_factor": bucket.table.attention_scaling}
    words = f"base {base:.6g} and linear factor {factor:.6g}"
    return Form(words, base, scaling, _difference(base**-index / factor, wanted))


def yarn(spec: RotarySpec, bucket: Bucket, factor: float, original: int) -> Form:
    """YaRN with the ramp of an original context length, tokens."""
    low, high = ramp_ends(spec, original)
    ramp = np.clip((np.arange(spec.pairs) - low) / max(0.001, high - low), 0, 1)
    plain = default_inv_freq(spec.base, spec.rotary_dim)
    difference = _difference(plain * (1 - ramp) + plain / factor * ramp, bucket.table.theta().numpy())
    scaling = {
        "type": "yarn",
        "factor": factor,
        "original_context_length": original,
        "attn_factor": bucket.table.attention_scaling / (0.1 * math.log(factor) + 1),
    }
    return Form(f"yarn of factor {factor:.6g} over {original} tokens", spec.base, scaling, difference)


def ramp_ends(spec: RotarySpec, original: int) -> tuple[int, int]:
    """Pairs up to the first index are kept, those from the second on are interpolated."""

    def index(turns: float) -> float:
        return spec.rotary_dim * math.log(original / (2 * math.pi * turns)) / (2 * math.log(spec.base))

    return max(0, math.floor(index(BETAS[0]))), min(spec.rotary_dim - 1, math.ceil(index(BETAS[1])))


def _difference(table: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(table / wanted - 1).max())
