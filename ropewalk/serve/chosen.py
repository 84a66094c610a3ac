"""Where vLLM looks for its attention backend: its own class, or ours when the engine has a setting.

vLLM resolves a backend by the name of an attribute, once per kind of layer, while it builds the model. So the choice is
made there, and an engine without a setting runs vLLM's.
"""

from typing import Any

import torch

from ropewalk.attention import choose
from ropewalk.errors import ModelError
from ropewalk.serve.plugin import engine_served, require_same


def __getattr__(name: str) -> Any:
    if name == "CPUBackend":
        return cpu_backend()
    if name == "CUDABackend":
        return cuda_backend()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def cpu_backend() -> Any:
    """vLLM's CPU backend, or ours for a setting that takes attention over."""
    from vllm.config import get_current_vllm_config
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    now = engine_served()
    if now is None or not now.takes_attention:
        setting = None if now is None else now.setting

        class StockBackend(CPUAttentionBackend):
            """vLLM's own, which notices an engine of another setting in the same process."""

            @staticmethod
            def get_impl_cls() -> Any:
                require_same(setting)
                return CPUAttentionBackend.get_impl_cls()

        return StockBackend
    from ropewalk.serve.banded import banded

    dtype = get_current_vllm_config().model_config.dtype
    core = choose(now.setting.backend, now.plan, device=torch.device("cpu"), dtype=dtype)
    return banded(now, CPUAttentionBackend, core, "CPU_ATTN")


def cuda_backend() -> Any:
    """Ours on CUDA; chosen by name, `--attention-backend CUSTOM`."""
    from vllm.config import get_current_vllm_config

    now = engine_served()
    if now is None or not now.takes_attention:
        raise ModelError(
            "--attention-backend CUSTOM is ropewalk's and needs a method that moves positions in --hf-overrides; "
            "leave the option out"
        )
    if not torch.cuda.is_available():
        raise ModelError("--attention-backend CUSTOM runs on CUDA, and there is no device; leave the option out")
    from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func
    from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend

    from ropewalk.serve.banded import banded
    from ropewalk.serve.flash import FlashBands

    core = FlashBands(flash_attn_varlen_func)
    dtype = get_current_vllm_config().model_config.dtype
    reason = core.unsupported(now.plan, device=torch.device("cuda"), dtype=dtype, grad=False)
    if reason is not None:
        raise ModelError(f"ropewalk's vLLM plug-in cannot run {now.method} on CUDA: {reason}; run it in transformers")
    return banded(now, FlashAttentionBackend, core, "CUSTOM")
