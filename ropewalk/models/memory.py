"""How much memory a model needs at a length, told from its config before a weight is loaded."""

from typing import TYPE_CHECKING

import psutil

from ropewalk.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

GIB = 2**30
RUNTIME = 432_000_000  # bytes of Python, torch, transformers, this package and a model's class, on Linux x86-64
MAPPED = 32 * 2**20  # glibc maps blocks of this size and gives them back; smaller ones come from a heap (mallopt(3))


def required_memory(config: "PretrainedConfig", length: int, dtype: "torch.dtype", *, on_cpu: bool = True) -> int:
    """An estimate of the memory of one row of `length` tokens that are read at once.

    Weights, keys and values (2 * layers * num_kv_heads * head_dim numbers a token; sliding-window layers are counted as
    if they kept every key), what reading takes (`reading`), and on a CPU the process itself.

    Args:
        config: a causal language model's config; its parameters are counted on the meta device.
        length: tokens, prompt and answer together.
        dtype: of weights and cache.
        on_cpu: the model runs in the memory of a process on Linux; else on a device of its own.

    Returns:
        Bytes.

    Raises:
        ModelError: the config is not of a causal language model.
    """
    parameters = sum(parameter.numel() for parameter in unloaded(config).parameters())  # tied ones are given once
    text = config.get_text_config()
    _, keys, _ = _widths(config)
    held = dtype.itemsize * (parameters + 2 * text.num_hidden_layers * keys * length)
    return held + reading(config, length, dtype, on_cpu=on_cpu) + (RUNTIME if on_cpu else 0)


def reading(config: "PretrainedConfig", tokens: int, dtype: "torch.dtype", *, on_cpu: bool) -> int:
    """Bytes that reading `tokens` at once takes besides weights and cache.

    What is alive at one time: four hidden states (the embeddings, a layer's input, the sum after its attention, that
    normed), cos and sin, and the larger of the queries, keys and values of attention, un-rotated and rotated, and the
    three wide vectors of a gated MLP. Measured on layers of SmolLM2, bfloat16, with every block mapped: 14.5 kB a token
    against 14.1 here.

    On a CPU, blocks below `MAPPED` stay with the process when they are freed. A block of the cache lands in the hole of
    a larger temporary, and what is left of the hole serves nothing: with every layer the heap grows by about one block
    of keys more than is held, by two where hidden states are below `MAPPED`, too (glibc's mallinfo, layer by layer, at
    8k, 16k and 32k; it varies from run to run by 4 blocks). Against the whole peak: docs/serving.md.
    """
    text = config.get_text_config()
    queries, keys, head_dim = _widths(config)
    wide = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    hidden, size = text.hidden_size, dtype.itemsize
    attention, mlp = [(3, queries * size), (4, keys * size)], [(3, wide * size)]
    alive = [(4, hidden * size), (2, head_dim * size), *max(attention, mlp, key=_bytes)]
    if not on_cpu:
        return tokens * _bytes(alive) + size * text.vocab_size
    holes = sum(tokens * width * size < MAPPED for width in (hidden, keys)) * text.num_hidden_layers * keys * size
    return tokens * (_bytes(alive) + holes) + size * text.vocab_size


def unloaded(config: "PretrainedConfig") -> "PreTrainedModel":
    """The model without memory, on the meta device; raises ModelError for none that writes text."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedModel

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"a {config.model_type} model is not a causal language model of transformers; give one that is"
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model


def check_memory(config: "PretrainedConfig", length: int, dtype: "torch.dtype") -> None:
    """Refuse a length whose estimate exceeds the memory that is free now on this machine.

    Args:
        config, length, dtype: as in `required_memory`.

    Raises:
        ModelError: says the estimated and the available GiB.
    """
    needed = required_memory(config, length, dtype) - RUNTIME  # this process has that already
    available = psutil.virtual_memory().available
    if needed > available:
        raise ModelError(
            f"{length} tokens need about {needed / GIB:.1f} GiB (weights, cache and one layer), "
            f"{available / GIB:.1f} GiB are available; take a shorter length or a smaller model"
        )


def _widths(config: "PretrainedConfig") -> tuple[int, int, int]:
    """Numbers of a token's queries and of its keys in a layer, and of a head."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)  # a state-space model has none, and no cache that grows
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // max(heads, 1)
    return heads * head_dim, kv_heads * head_dim, head_dim


def _bytes(blocks: list[tuple[int, int]]) -> int:
    """Of blocks, each given as how many there are and how large one is."""
    return sum(count * each for count, each in blocks)
