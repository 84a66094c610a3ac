"""What a model's configuration says about its rotary embedding, without weights."""

from typing import Any

import numpy as np
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.errors import ModelError
from ropewalk.rotary import RotarySpec, default_inv_freq

TABLES = ("linear", "dynamic", "yarn", "longrope", "llama3")  # rope types that extend; others only shape the table


def rope_parameters(config: PretrainedConfig, layer_type: str | None = None) -> dict[str, Any]:
    """The rotary part of a text configuration: of one layer type where they differ (full attention unless named)."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        raise ModelError(f"{config.model_type} is not a RoPE model: its configuration has no rope_parameters")
    if "rope_type" in parameters or "rope_theta" in parameters:
        return parameters
    nested = parameters.get(layer_type or "full_attention")
    if not isinstance(nested, dict):
        raise ModelError(f"{config.model_type}: no rope_parameters for full-attention layers in its configuration")
    return nested


def pretrained_length(config: PretrainedConfig, parameters: dict[str, Any]) -> int:
    """The window that the checkpoint was made for, tokens.

    `max_position_embeddings`, or for YaRN original length x factor where that is longer (checkpoints differ in which of
    the two lengths they write there).
    """
    length = getattr(config, "max_position_embeddings", None)
    if not length:
        raise ModelError(
            f"{config.model_type}: its configuration has no max_position_embeddings; give pretrained_length"
        )
    original = parameters.get("original_max_position_embeddings")
    if parameters.get("rope_type") == "yarn" and original:
        return max(int(length), round(original * parameters.get("factor", 1.0)))
    return int(length)


def rope_base(parameters: dict[str, Any]) -> float:
    """The base of theta_i = base^(-2i / d)."""
    return float(parameters.get("rope_theta", 10000.0))


def scaling_of(parameters: dict[str, Any]) -> str | None:
    """The name of the extending table that the checkpoint already carries, or None."""
    kind = parameters.get("rope_type", "default")
    return kind if kind in TABLES else None


def layer_kinds(config: PretrainedConfig, window: int) -> tuple[str, ...]:
    """Per layer "sliding" where the configuration gives it a window within the trained length, else "full"."""
    count = int(config.num_hidden_layers)
    kinds = list(getattr(config, "layer_types", None) or ["full_attention"] * count)
    sliding = getattr(config, "sliding_window", None)
    short = sliding is not None and sliding <= window
    return tuple("sliding" if short and kind == "sliding_attention" else "full" for kind in kinds)


def spec_from_config(config: PretrainedConfig, *, pretrained: int | None = None) -> RotarySpec:
    """The rotary embedding as the configuration describes it, for planning without weights.

    `extend` measures the same on the model itself; the layout, which no configuration says, is taken as "half" here.
    """
    config = config.get_text_config()
    parameters = rope_parameters(config)
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    start = 0
    rotary_dim = int(head_dim * parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)))
    if getattr(config, "qk_rope_head_dim", None):  # multi-head latent attention rotates the tail of a head
        rotary_dim = int(config.qk_rope_head_dim)
        start = int(config.qk_nope_head_dim)
        head_dim = start + rotary_dim
    base = rope_base(parameters)
    window = pretrained or pretrained_length(config, parameters)
    scaling = scaling_of(parameters)
    attention_scaling = 1.0
    if scaling is None:
        inv_freq = default_inv_freq(base, rotary_dim).astype(np.float32).astype(np.float64)
    else:
        table, attention_scaling = ROPE_INIT_FUNCTIONS[scaling](config, seq_len=window)
        inv_freq = table.double().numpy()
    return RotarySpec(
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rotary_start=start,
        base=base,
        pretrained_length=window,
        num_heads=heads,
        num_kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        num_layers=int(config.num_hidden_layers),
        layer_kinds=layer_kinds(config, window),
        inv_freq=tuple(inv_freq.tolist()),
        attention_scaling=float(attention_scaling),
        scaling=scaling,
    )
