"""A frequency table as `rope_parameters`: in the type of transformers that gives it exactly, else as `longrope`."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.errors import ModelError
from ropewalk.methods import Llama3, Method, NTKByParts, Yarn
from ropewalk.models.export.buckets import OURS, Bucket
from ropewalk.models.spec import layer_kinds, rope_parameters
from ropewalk.rotary import RotarySpec

# Relative. A formula in float32 rounds a few times: 2.6e-7 at most was measured over heads of 64 and 128, bases of 1e4
# to 1e7 and seven methods. `longrope` factors are searched, and come within one rounding (1.2e-7).
EXACT = 5e-7
# What an extending table keeps in `rope_parameters`; all else there (rope_theta, partial rotary) is the model's.
# fmt: off
SCALING_KEYS = frozenset((
    "rope_type", "type", "factor", "original_max_position_embeddings", "attention_factor", "attn_factor", "mscale",
    "mscale_all_dim", "truncate", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor", "short_factor",
    "long_factor", "short_mscale", "long_mscale",
))
# fmt: on


@dataclass(frozen=True)
class Rope:
    """What goes into a configuration, and what an engine makes of it.

    Attributes:
        parameters: the `rope_parameters` of the full-attention layers.
        max_position_embeddings: tokens, as engines read them beside these parameters.
        inv_freq: the float32 table that transformers builds from them, [pairs].
        attention_scaling: what transformers multiplies cos and sin by.
        difference: its largest relative distance from the method's own table.
    """

    parameters: dict[str, Any]
    max_position_embeddings: int
    inv_freq: np.ndarray
    attention_scaling: float
    difference: float


def express(config: PretrainedConfig, spec: RotarySpec, method: Method, bucket: Bucket) -> Rope:
    """The first rope type whose table, as transformers computes it in float32, is the bucket's.

    Tried in this order: another `rope_theta`, `linear`, `llama3`, `yarn`, and `longrope`, which takes any table: short
    and long factors are the same, so that nothing is switched, and the attention factor stands there under every name
    that is read (transformers: attention_factor; vLLM and SGLang: short_mscale and long_mscale).

    Args:
        config: of the text model.
        spec: its rotary embedding.
        method: filled; its fields are those of a native type where it has one.

    Raises:
        ModelError: layers with a window share the rotary embedding, or transformers builds another table than the one
            that is asked for.
    """
    if "sliding" in layer_kinds(config, spec.pretrained_length) and not nested(config):
        raise ModelError(
            f"{config.model_type} cannot be exported: its layers with a window rotate by the same parameters as its "
            f"full ones, and must stay as they are; {OURS}"
        )
    own = {k: v for k, v in rope_parameters(config).items() if k not in SCALING_KEYS} | {"rope_theta": spec.base}
    trained = rope_parameters(config).get("original_max_position_embeddings") or spec.pretrained_length
    for scaling, window in _candidates(spec, method, bucket, int(trained)):
        parameters = own | scaling
        try:
            changed = type(config).from_dict(written(config.to_dict(), parameters, window))
            inv_freq, attention = stock_table(changed)
        except (StrictDataclassError, KeyError, ValueError, RuntimeError):  # Phi-3 takes no type but longrope
            continue
        wanted = bucket.table.theta().numpy()
        if inv_freq.shape != wanted.shape or not math.isclose(attention, bucket.table.attention_scaling, rel_tol=EXACT):
            continue
        difference = float(np.abs(inv_freq / wanted - 1).max())
        if difference <= EXACT:
            return Rope(parameters, window, inv_freq, attention, difference)
    raise ModelError(
        f"{config.model_type} cannot be exported: no rope type of transformers gives its {spec.pairs} pairs; {OURS}"
    )


def _candidates(spec: RotarySpec, method: Method, bucket: Bucket, trained: int) -> list[tuple[dict[str, Any], int]]:
    """rope types that may hold the table, each with the max_position_embeddings that engines expect beside it."""
    theta = bucket.table.theta().numpy()
    original = {"original_max_position_embeddings": trained}
    found: list[tuple[dict[str, Any], int]] = []
    if spec.scaling is None and spec.pairs > 1:
        base = float(theta[-1] ** (-spec.pairs / (spec.pairs - 1)))
        found.append(({"rope_type": "default", "rope_theta": base}, bucket.length))
        factor = round(float(spec.inv_freq[0] / theta[0]), 9)
        if factor > 1:
            # Engines multiply max_position_embeddings by a linear factor, so it stays below the length by as much.
            found.append(({"rope_type": "linear", "factor": factor}, math.ceil(bucket.length / factor)))
        if isinstance(method, (Llama3, NTKByParts)):
            ramp = {"low_freq_factor": method.low, "high_freq_factor": method.high}
            found.append(({"rope_type": "llama3", "factor": method.factor, **ramp, **original}, bucket.length))
        # An attention factor of one's own has no name that all engines read with one meaning; longrope has.
        if isinstance(method, Yarn) and method.attention_factor is None:
            betas = {"beta_fast": method.beta_fast, "beta_slow": method.beta_slow}
            found.append(({"rope_type": "yarn", "factor": method.factor, **betas, **original}, bucket.length))
    factors = longrope_factors(spec.base, theta)
    stretch = max(1.0, bucket.length / spec.pretrained_length)
    found.append((longrope(factors, bucket.table.attention_scaling, stretch) | original, bucket.length))
    return found


def longrope(factors: list[float], attention: float, stretch: float) -> dict[str, Any]:
    """One table as a `longrope` entry: nothing is switched, and the attention factor has every name that is read.

    Args:
        attention: multiplies cos and sin.
        stretch: longest text / trained window, from which engines would take an attention factor of their own.
    """
    return {
        "rope_type": "longrope",
        "factor": stretch,
        "short_factor": factors,
        "long_factor": factors,
        "attention_factor": attention,
        "short_mscale": attention,
        "long_mscale": attention,
    }


def longrope_factors(base: float, inv_freq: np.ndarray) -> list[float]:
    """float32 factors whose table 1 / (factor * base^(2i/d)), computed in float32, is nearest to `inv_freq`.

    The nearest factor does not always give the nearest table, because product and quotient round: its neighbours are
    tried. What is left is no more than one float32 rounding.

    Args:
        inv_freq: theta_i, float64 [pairs], all above 0.
    """
    powers = (base ** _exponents(len(inv_freq))).numpy()
    best = nearest = (1 / (inv_freq * powers)).astype(np.float32)
    error = np.full(len(inv_freq), np.inf)
    for side in (np.inf, 0):
        factor = nearest
        for _ in range(3):
            reached = (np.float32(1) / (factor * powers)).astype(np.float64)
            closer = np.abs(reached - inv_freq) < error
            best, error = np.where(closer, factor, best), np.where(closer, np.abs(reached - inv_freq), error)
            factor = np.nextafter(factor, np.float32(side))
    return [float(factor) for factor in best]


def stock_table(config: PretrainedConfig) -> tuple[np.ndarray, float]:
    """The table of the full-attention layers as transformers computes it from a configuration, and its factor.

    Returns: float32 theta_i [pairs], and what multiplies cos and sin.
    """
    parameters = rope_parameters(config)
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        pairs = int(head_dim * parameters.get("partial_rotary_factor", 1.0)) // 2
        return (1.0 / parameters["rope_theta"] ** _exponents(pairs)).numpy(), 1.0
    layer_type = "full_attention" if nested(config) else None
    inv_freq, attention = ROPE_INIT_FUNCTIONS[kind](copy.deepcopy(config), layer_type=layer_type)
    return inv_freq.numpy(), float(attention)


def written(config: dict[str, Any], parameters: dict[str, Any], max_position_embeddings: int) -> dict[str, Any]:
    """A config.json with these parameters on its full-attention layers, under today's names and those of older engines.

    Older engines read `rope_scaling` (with `type` as well as `rope_type`), `rope_theta` and `partial_rotary_factor`
    beside it; GPT-NeoX has names of its own. Parameters that differ by layer type have no older form.

    Args:
        config: as `to_dict` or a file gives it; it stays as it is.
    """
    changed = config | {"max_position_embeddings": max_position_embeddings}
    original = parameters.get("original_max_position_embeddings")
    if original is not None and config.get("original_max_position_embeddings") is not None:
        changed["original_max_position_embeddings"] = original  # Phi-3 keeps it here, and transformers prefers it
    if "full_attention" in config["rope_parameters"]:
        changed["rope_parameters"] = config["rope_parameters"] | {"full_attention": parameters}
        return changed
    kind = parameters["rope_type"]
    neox = config["model_type"] == "gpt_neox"
    changed["rope_parameters"] = parameters
    changed["rope_scaling"] = None if kind == "default" else {"type": kind, **parameters}
    changed["rotary_emb_base" if neox else "rope_theta"] = parameters["rope_theta"]
    if "partial_rotary_factor" in parameters:
        changed["rotary_pct" if neox else "partial_rotary_factor"] = parameters["partial_rotary_factor"]
    return changed


def nested(config: PretrainedConfig) -> bool:
    """True where a configuration has parameters for each type of layer."""
    return rope_parameters(config) is not config.rope_parameters


def _exponents(pairs: int) -> torch.Tensor:
    """2i / d as transformers rounds it, float32 [pairs]."""
    return torch.arange(0, 2 * pairs, 2, dtype=torch.int64).float() / (2 * pairs)
