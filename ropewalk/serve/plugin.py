"""The vLLM plug-in: what the entry point `vllm.general_plugins` calls in every process of an engine.

It registers two things and decides nothing: a class in place of each rotary class, and a place where vLLM looks for its
attention backend. Both look at the engine's configuration when a model is built; without a `ropewalk` entry there they
are vLLM's own.
"""

from typing import TYPE_CHECKING, Any

from ropewalk.errors import BackendError, ModelError
from ropewalk.serve.setting import Setting, setting_of

if TYPE_CHECKING:
    from ropewalk.serve.served import Served

CPU = "ropewalk.serve.chosen.CPUBackend"
CUDA = "ropewalk.serve.chosen.CUDABackend"


def register() -> None:
    """Register with vLLM; a second call in a process changes nothing.

    Raises:
        BackendError: a version of vLLM that has no such places. Left alone, it would serve a model unextended.
    """
    try:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

        from ropewalk.serve.swapped import swap_rotaries
    except ImportError as error:
        from ropewalk.serve.front import TESTED

        raise BackendError(
            f"ropewalk's plug-in does not fit this vLLM ({error}); install one that it is tested on "
            f"({', '.join(TESTED)}), or start vLLM without plug-ins: VLLM_PLUGINS=''"
        ) from error
    swap_rotaries()
    register_backend(AttentionBackendEnum.CPU_ATTN, CPU)
    register_backend(AttentionBackendEnum.CUSTOM, CUDA)


def engine_served() -> "Served | None":
    """What the engine that is being built runs, or None when it was told nothing.

    Raises:
        BackendError: a version of vLLM that was not tested.
        ModelError, MethodError, ProfileError: what it was told cannot be run; no weights are loaded yet.
    """
    from vllm.config import get_current_vllm_config_or_none

    engine = get_current_vllm_config_or_none()
    if engine is None or engine.model_config is None:
        return None
    model = engine.model_config
    setting = setting_of(model.hf_config)
    if setting is None:
        return None
    from vllm import __version__ as version

    from ropewalk.serve.front import Engine, require_engine
    from ropewalk.serve.served import served

    require_engine(Engine("vllm", version), setting.method)
    now = served(setting, model.hf_text_config, model.max_model_len)
    refuse_features(engine, bands=now.takes_attention)
    return now


def require_same(setting: Setting | None) -> None:
    """Raise ModelError when the engine that is being built has another setting than the classes of this process.

    vLLM keeps rotary modules and backend classes for the next engine of a process.
    """
    from vllm.config import get_current_vllm_config_or_none

    engine = get_current_vllm_config_or_none()
    if engine is not None and engine.model_config is not None and setting_of(engine.model_config.hf_config) != setting:
        raise ModelError(
            f"this process has run an engine with the ropewalk setting {setting and setting.to_json()} and runs no "
            "other; start the second engine in a process of its own"
        )


def refuse_features(engine: Any, *, bands: bool) -> None:
    """Refuse features under which a method would go wrong.

    Args:
        engine: a VllmConfig.
        bands: attention is taken over; else one table is exchanged.

    Raises:
        ModelError: names the feature.
    """
    model, passes = engine.model_config, engine.compilation_config.pass_config
    device, backend = engine.device_config.device_type, engine.attention_config.backend
    keys, draft = str(engine.cache_config.cache_dtype), engine.speculative_config
    fused = ("enable_qk_norm_rope_fusion", "fuse_rope_kvcache", "fuse_rope_kvcache_cat_mla")
    told = {
        "model_impl='transformers' rotates in transformers' own modules": model.using_transformers_backend(),
        "multi-head latent attention has its own backends": model.use_mla,
        "multimodal rotary positions are not one number": model.uses_mrope,
        "a draft model would share the setting (n-grams do not)": draft is not None and draft.method != "ngram",
        "a key-value connector shares keys with engines of another setting": engine.kv_transfer_config is not None,
    }
    if bands:
        told |= {
            f"bands have no attention backend for {device!r} devices": device not in ("cpu", "cuda"),
            "on CUDA, bands run in the backend of --attention-backend CUSTOM": (
                device == "cuda" and getattr(backend, "name", None) != "CUSTOM"
            ),
            f"kv_cache_dtype={keys!r} is not for keys that bands rotate": keys.startswith(("fp8", "nvfp4", "int")),
            "a fused rotary kernel passes the plug-in by (compilation pass_config)": any(
                getattr(passes, name, False) for name in fused
            ),
        }
    for reason, holds in told.items():
        if holds:
            raise ModelError(f"ropewalk's vLLM plug-in cannot run this engine: {reason}; change that, or leave it out")
