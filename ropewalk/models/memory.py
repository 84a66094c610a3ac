"""How much memory a model needs at a length, told from its config before a weight is loaded."""

from typing import TYPE_CHECKING

import psutil

from ropewalk.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

GIB = 2**30


def required_memory(config: "PretrainedConfig", length: int, dtype: "torch.dtype") -> int:
    """An estimate of the memory of one row of `length` tokens: weights, KV cache, activations of one layer.

    Bytes = size(dtype) * (parameters + 2 * layers * num_kv_heads * head_dim * length + length * a), where the a
    numbers per token are what one layer holds at once: the residual stream before and after, the un-rotated and rotated
    queries, keys and values of attention, or the three wide vectors of a gated MLP, whichever is larger. Sliding-window
    layers are counted as if they kept every key, and logits are counted for the last token only.

    Args:
        config: a causal language model's config; its parameters are counted on the meta device.
        length: tokens, prompt and answer together.
        dtype: of weights and cache.

    Returns:
        Bytes.

    Raises:
        ModelError: the config is not of a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except ValueError as error:
        raise ModelError(
            f"a {config.model_type} model is not a causal language model of transformers; give one that is"
        ) from error
    parameters = sum(parameter.numel() for parameter in model.parameters())  # tied ones are given once
    text = config.get_text_config()
    hidden = text.hidden_size
    heads = getattr(text, "num_attention_heads", 0)  # a state-space model has none, and no cache that grows
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or hidden // max(heads, 1)
    wide = getattr(text, "intermediate_size", None) or 4 * hidden
    cache = 2 * text.num_hidden_layers * kv_heads * head_dim * length
    attention = 3 * heads * head_dim + 4 * kv_heads * head_dim
    activations = length * (2 * hidden + max(attention, 3 * wide))
    return dtype.itemsize * (parameters + cache + activations)


def check_memory(config: "PretrainedConfig", length: int, dtype: "torch.dtype") -> None:
    """Refuse a length whose estimate exceeds the memory that is free now on this machine.

    Args:
        config, length, dtype: as in `required_memory`.

    Raises:
        ModelError: says the estimated and the available GiB.
    """
    needed = required_memory(config, length, dtype)
    available = psutil.virtual_memory().available
    if needed > available:
        raise ModelError(
            f"{length} tokens need about {needed / GIB:.1f} GiB (weights, cache and one layer), "
            f"{available / GIB:.1f} GiB are available; take a shorter length or a smaller model"
        )
