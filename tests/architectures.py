"""Tiny random models of many families, most of them causal language models, built without any download.

`WORKS` holds causal families that the model seam of `ropewalk.extend` takes over bit for bit, `ENCODERS` such families
whose tokens see both sides; `REFUSED` those that it must refuse, each with the word that the refusal has to contain.
Every family keeps what makes it different at full size: grouped-query heads, partial or interleaved rotary, layers with
a window or without rotary, latent attention, experts, sinks, soft caps, residual scales. All are a few hundred thousand
float32 weights at most.
"""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2VLTextConfig,
)

PRETRAINED_LENGTH = 64
VOCABULARY = 99
SEED = 0

# Wide weights (std 0.2 at width 64) make attention scores spread over several units, so that a wrong rotation shows.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": PRETRAINED_LENGTH,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}


def build(model_type: str, auto: Any = AutoModelForCausalLM, **overrides: Any) -> PreTrainedModel:
    """A tiny random model of a family: the sizes above that its configuration knows, then the overrides.

    Args:
        model_type: the family, as in `config.model_type`.
        auto: the class of transformers that builds it.
        overrides: configuration fields that differ from `SIZES`.
    Returns: the model, float32, eager attention, evaluation mode; the same weights at every call.
    """
    sizes = _sizes_of(type(AutoConfig.for_model(model_type)))
    config = AutoConfig.for_model(model_type, **copy.deepcopy(sizes | overrides))  # configurations change their lists
    torch.manual_seed(SEED)
    return auto.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def _sizes_of(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """The entries of `SIZES` that a configuration class has, under its own names or the common ones."""
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    return {name: value for name, value in SIZES.items() if name in known}


def _mixed(*kinds: str, window: int = 8) -> dict[str, Any]:
    """Layer types by their first letters (full, sliding, linear_attention) and the window of the sliding ones."""
    return {
        "num_hidden_layers": len(kinds),
        "layer_types": [f"{kind}_attention" for kind in kinds],
        "sliding_window": window,
    }


_FULL_AND_SLIDING = _mixed("sliding", "full", "sliding")
# Tables scaled to four times an original length, as the checkpoints of these families come. Small originals, so that
# the trained length stays PRETRAINED_LENGTH.
_SCALED = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": PRETRAINED_LENGTH // 4}
_YARN = {"rope_parameters": {"rope_type": "yarn", **_SCALED}}
_LLAMA3 = {"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **_SCALED}}

# Families that need nothing beyond `SIZES`.
_PLAIN = {
    "one rotary, full attention, half layout": (
        "llama mistral qwen2 qwen3 phi3 granite starcoder2 olmo olmo2 gemma arcee bitnet seed_oss hyperclovax"
    ),
    "calls the attention function twice a layer": "diffllama",
    "partial rotary": "gpt_neox phi stablelm nemotron persimmon",
    "interleaved": "cohere glm glm4 ernie4_5 helium",
    "experts": (
        "mixtral qwen2_moe qwen3_moe olmoe granitemoe granitemoeshared phimoe dots1 glm4_moe ernie4_5_moe minimax_m2 "
        "jetmoe flex_olmo minimax"
    ),
}

# Sliding and full layers in turn.
_WINDOWED = "gemma2 gemma3_text vaultgemma olmo3 ministral modernbert-decoder granite_swa"

# One key head for each query head, as the projections make them.
_LATENT = "deepseek_v3 minicpm3 glm4_moe_lite youtu"

# name -> (model type, overrides); the name is the model type unless one family stands here more than once.
_WORKING: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for families in _PLAIN.values() for family in families.split()},
    **{family: (family, _FULL_AND_SLIDING) for family in _WINDOWED.split()},
    **{family: (family, {"num_key_value_heads": 4}) for family in _LATENT.split()},
    "llama-multi-head": ("llama", {"num_key_value_heads": 4}),
    "llama-one-key-head": ("llama", {"num_key_value_heads": 1}),
    "llama-yarn": ("llama", _YARN),
    "llama-llama3": ("llama", _LLAMA3),
    "apertus": ("apertus", _LLAMA3),
    "cwm": ("cwm", _LLAMA3 | _FULL_AND_SLIDING),
    # sinks on every layer
    "gpt_oss": ("gpt_oss", _YARN | _FULL_AND_SLIDING),
    # Scales queries by 1 + beta * log(1 + position // original) after the rotation; through the seam they are scaled
    # before it, one rounding apart beyond the original length (measured: logits 6e-6 apart). Hence beta 0 here.
    "ministral3": ("ministral3", {"rope_parameters": _YARN["rope_parameters"] | {"llama_4_scaling_beta": 0.0}}),
    "gpt_neox-sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, **_FULL_AND_SLIDING}),
    "qwen3-window": ("qwen3", {"use_sliding_window": True, **_FULL_AND_SLIDING}),
    "smollm3": ("smollm3", {"num_hidden_layers": 3, "no_rope_layers": [1, 1, 0]}),
    # rotate by a product of complex numbers; Llama 4 normalises afterwards where it has a norm
    "llama4_text": ("llama4_text", {}),
    "llama4_text-no-norm": ("llama4_text", {"use_qk_norm": False}),
    "llama4_text-no-rope": ("llama4_text", {"num_hidden_layers": 3, "no_rope_layers": [1, 1, 0]}),
    "deepseek_v2": ("deepseek_v2", {"num_key_value_heads": 4}),
    # normalise queries and keys after the rotation
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {}),
    # two head dims in one model
    "gemma4_text": (
        "gemma4_text",
        {
            **_FULL_AND_SLIDING,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 99,
            "global_head_dim": 32,
        },
    ),
    # key heads differ by layer, sinks on the sliding layer only
    "mimo_v2_flash": ("mimo_v2_flash", {"sliding_window": 8}),
    # its rotary is called `pos_emb`
    "lfm2_moe": ("lfm2_moe", {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "falcon_h1": (
        "falcon_h1",
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8},
    ),
    "qwen3_next": ("qwen3_next", _mixed("linear", "full")),
    "olmo_hybrid": ("olmo_hybrid", _mixed("linear", "full")),
}

_HAS_NO_ROTARY = "gpt2 opt bloom mpt gpt_bigcode biogpt"

# name -> (model type, overrides, the reason word)
_NOT_WORKING: dict[str, tuple[str, dict[str, Any], str]] = {
    **{family: (family, {}, "rotary") for family in _HAS_NO_ROTARY.split()},
    # rotate inside their attention, without a module
    "gptj": ("gptj", {"rotary_dim": 8}, "rotary"),
    "codegen": ("codegen", {"rotary_dim": 8}, "rotary"),
    # never look a registered attention function up
    "falcon": ("falcon", {}, "attention"),
    "gpt_neox_japanese": ("gpt_neox_japanese", {}, "attention"),
    # only their windowed layers rotate
    **{family: (family, _FULL_AND_SLIDING, "nothing to extend") for family in ("cohere2", "exaone4", "afmoe")},
    # its rotary layers see chunks of so many tokens, which is no window
    "llama4_text-chunks": ("llama4_text", {"attention_chunk_size": 16}, "nothing to extend"),
    # rotates the other way round, and normalises afterwards
    "nanochat": ("nanochat", {}, "after"),
    # adds scores of its own to the mask
    "doge": ("doge", {}, "mask"),
}


def _vision_model() -> PreTrainedModel:
    """Qwen2-VL, whose rotary takes three positions a token (M-RoPE)."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    text = _sizes_of(Qwen2VLTextConfig) | {"rope_parameters": rope}
    config = AutoConfig.for_model(
        "qwen2_vl",
        text_config=text,
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4},
        image_token_id=90,
        video_token_id=91,
        vision_start_token_id=92,
    )
    torch.manual_seed(SEED)
    return AutoModelForImageTextToText.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


# Tokens see both sides. ModernBERT and Gemma 3 alternate windows with full attention, each with a base of its own; the
# window is inclusive in the one and exclusive in the other. The last two are decoders that were made encoders.
_BOTH_SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "modernbert": ("modernbert", {"num_hidden_layers": 4, "local_attention": 14, "cls_token_id": 1, "sep_token_id": 2}),
    "eurobert": ("eurobert", {"mask_token_id": 3}),
    **{family: (family, {}) for family in ("nomic_bert", "gte", "jina_embeddings_v3")},
    "gemma3-encoder": ("gemma3_text", {"use_bidirectional_attention": True} | _mixed("sliding", "full", window=14)),
    "llama-encoder": ("llama", {"is_causal": False}),
}
ENCODERS: dict[str, Callable[[], PreTrainedModel]] = {
    name: partial(build, model_type, AutoModel, **overrides) for name, (model_type, overrides) in _BOTH_SIDES.items()
}
WORKS: dict[str, Callable[[], PreTrainedModel]] = {
    name: partial(build, model_type, **overrides) for name, (model_type, overrides) in sorted(_WORKING.items())
}
REFUSED: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    **{
        name: (partial(build, model_type, **overrides), reason)
        for name, (model_type, overrides, reason) in sorted(_NOT_WORKING.items())
    },
    "qwen2_vl": (_vision_model, "M-RoPE"),
}
