"""Inverse frequencies and attention factors of the frequency methods, one pair at a time, in float64.

theta_i = base^(-2i / d) for i = 0 .. d/2 - 1 (d: rotary dimensions, called `rotary_dim`). L: trained length, tokens;
s = factor = L' / L; r_i = L theta_i / (2 pi): rotations that pair i made in training. A table is the pair (inv_freq:
float64 [pairs], radians per token; attention factor: multiplies cos and sin).
`transformers_table` asks transformers itself, for the types that it has.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = tuple[NDArray[np.float64], float]


def plain(rotary_dim: int, base: float) -> NDArray[np.float64]:
    """theta_i = base^(-2i / d)."""
    return np.array([base ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)], dtype=np.float64)


def pi(rotary_dim: int, base: float, factor: float) -> Table:
    """Position interpolation (arXiv 2306.15595): theta_i / s."""
    return plain(rotary_dim, base) / factor, 1.0


def ntk(rotary_dim: int, base: float, factor: float) -> Table:
    """NTK-aware (bloc97): base' = base s^(d / (d - 2)), so that the first pair is kept and the last is slowed by s."""
    return plain(rotary_dim, base * factor ** (rotary_dim / (rotary_dim - 2))), 1.0


def ntk_liu(rotary_dim: int, base: float, pretrained_length: float, target_length: float) -> Table:
    """NTK of Liu et al. (arXiv 2310.05209): base' = base^(ln(L' / 2 pi) / ln(L / 2 pi))."""
    exponent = math.log(target_length / (2 * math.pi)) / math.log(pretrained_length / (2 * math.pi))
    return plain(rotary_dim, base**exponent), 1.0


def dynamic_ntk(rotary_dim: int, base: float, factor: float, pretrained_length: float, length: float) -> Table:
    """Dynamic NTK at n tokens: base' = base (f n / L - (f - 1))^(d / (d - 2)) for n > L, base otherwise."""
    if length <= pretrained_length:
        return plain(rotary_dim, base), 1.0
    alpha = factor * length / pretrained_length - (factor - 1)
    return plain(rotary_dim, base * alpha ** (rotary_dim / (rotary_dim - 2))), 1.0


def ntk_by_parts(
    rotary_dim: int, base: float, factor: float, pretrained_length: float, alpha: float = 1.0, beta: float = 32.0
) -> Table:
    """NTK-by-parts as in the YaRN paper (arXiv 2309.00071, section 3.2): the ramp is linear in the rotations r_i.

    theta'_i = (1 - gamma_i) theta_i / s + gamma_i theta_i, gamma_i = clip((r_i - alpha) / (beta - alpha), 0, 1).
    """
    scaled = []
    for theta in plain(rotary_dim, base):
        rotations = pretrained_length * theta / (2 * math.pi)
        gamma = min(max((rotations - alpha) / (beta - alpha), 0.0), 1.0)
        scaled.append((1 - gamma) * theta / factor + gamma * theta)
    return np.array(scaled, dtype=np.float64), 1.0


def yarn_attention_factor(factor: float) -> float:
    """0.1 ln s + 1 (arXiv 2309.00071, equation 22), 1 when nothing is extended."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _kept_by_index(
    rotary_dim: int, base: float, pretrained_length: float, beta_fast: float, beta_slow: float, truncate: bool
) -> list[float]:
    """gamma_i of the YaRN code: 1 up to index `low`, 0 from index `high`, linear in the index i between them.

    c(x) = d ln(L / (2 pi x)) / (2 ln base) is the index of the pair that made x rotations; low = floor c(beta_fast),
    high = ceil c(beta_slow), kept inside [0, d - 1] as every implementation does.
    """

    def index_of(rotations: float) -> float:
        return rotary_dim * math.log(pretrained_length / (2 * math.pi * rotations)) / (2 * math.log(base))

    low, high = index_of(beta_fast), index_of(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    if low == high:
        high += 0.001  # the step that transformers takes instead of dividing by zero
    return [1 - min(max((i - low) / (high - low), 0.0), 1.0) for i in range(rotary_dim // 2)]


def yarn(
    rotary_dim: int,
    base: float,
    factor: float,
    pretrained_length: float,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Table:
    """YaRN as the engines mean it: frequencies blended on a ramp in the pair index, attention factor 0.1 ln s + 1."""
    kept = _kept_by_index(rotary_dim, base, pretrained_length, beta_fast, beta_slow, truncate)
    theta = plain(rotary_dim, base)
    scaled = [(1 - gamma) * theta[i] / factor + gamma * theta[i] for i, gamma in enumerate(kept)]
    return np.array(scaled, dtype=np.float64), yarn_attention_factor(factor)


def yarn_paper(
    rotary_dim: int, base: float, factor: float, pretrained_length: float, alpha: float = 1.0, beta: float = 32.0
) -> Table:
    """YaRN as the paper prints it (arXiv 2309.00071): NTK-by-parts (ramp in rotations) with the attention factor."""
    return ntk_by_parts(rotary_dim, base, factor, pretrained_length, alpha, beta)[0], yarn_attention_factor(factor)


def yarn_lambda(
    rotary_dim: int,
    base: float,
    factor: float,
    pretrained_length: float,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
) -> Table:
    """Revised YaRN (PoSE's `revised_yarn`): wavelengths blended on YaRN's ramp.

    theta_i / ((1 - gamma_i) s + gamma_i)
    """
    kept = _kept_by_index(rotary_dim, base, pretrained_length, beta_fast, beta_slow, truncate)
    theta = plain(rotary_dim, base)
    scaled = [theta[i] / ((1 - gamma) * factor + gamma) for i, gamma in enumerate(kept)]
    return np.array(scaled, dtype=np.float64), yarn_attention_factor(factor)


def llama3(
    rotary_dim: int, base: float, factor: float, pretrained_length: float, low: float = 1.0, high: float = 4.0
) -> Table:
    """Llama 3.1 scaling, by wavelength: short ones kept, long ones divided by s, a smooth step between.

    wavelength < L / high: theta. wavelength > L / low: theta / s. Between them ((1 - t) / s + t) theta with
    t = (L / wavelength - low) / (high - low).
    """
    scaled = []
    for theta in plain(rotary_dim, base):
        wavelength = 2 * math.pi / theta
        if wavelength < pretrained_length / high:
            scaled.append(theta)
        elif wavelength > pretrained_length / low:
            scaled.append(theta / factor)
        else:
            smooth = (pretrained_length / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * theta / factor + smooth * theta)
    return np.array(scaled, dtype=np.float64), 1.0


def longrope(
    rotary_dim: int,
    base: float,
    factor: float,
    pretrained_length: float,
    length: float,
    *,
    short: Sequence[float],
    long: Sequence[float],
) -> Table:
    """LongRoPE in the form of transformers: theta_i / short_i for n <= L, theta_i / long_i for n > L.

    Attention factor sqrt(1 + ln s / ln L) for both, 1 when s <= 1.
    """
    divisors = long if length > pretrained_length else short
    theta = plain(rotary_dim, base)
    scaled = [theta[i] / divisor for i, divisor in enumerate(divisors)]
    attention_factor = math.sqrt(1 + math.log(factor) / math.log(pretrained_length)) if factor > 1 else 1.0
    return np.array(scaled, dtype=np.float64), attention_factor


def transformers_table(
    rope_parameters: dict[str, Any], *, head_dim: int, base: float, length: int, seq_len: int | None = None
) -> Table:
    """The table that transformers computes (in float32) for `rope_parameters`, returned as float64.

    Args:    rope_parameters: `rope_type`, `factor` and the keys of the type; the base and the trained length are
             filled in.
             length: trained length, tokens.
             seq_len: current length, tokens; for `dynamic` and `longrope`.
    """
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_theta": base, **rope_parameters}
    max_length = length  # what `dynamic` counts from
    if parameters["rope_type"] in ("yarn", "llama3", "longrope"):
        parameters["original_max_position_embeddings"] = length
        max_length = math.ceil(length * parameters["factor"])
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=head_dim,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=head_dim,
        max_position_embeddings=max_length,
        rope_parameters=parameters,
    )
    inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device=None, seq_len=seq_len)
    return inv_freq.double().numpy(), float(attention_factor)
