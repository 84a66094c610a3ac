"""What a model will need at a length, told from its configuration alone."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from transformers import PretrainedConfig

from ropewalk.attention.rotated import reaches, unsupported
from ropewalk.errors import ModelError
from ropewalk.models.memory import GIB, RUNTIME, reading, unloaded
from ropewalk.models.spec import spec_from_config
from ropewalk.plan import Plan

CHUNK = 2048  # tokens that an engine reads at once


@dataclass(frozen=True)
class Need:
    """What one request of a length takes.

    Attributes:
        weights, cache, transients: bytes over all devices: parameters; keys and values of one request; what a step of
            one chunk takes besides (`models.memory.reading`).
        runtime: bytes of the process itself where it is the device, 0 elsewhere.
        devices: that it is spread over, equal parts by tensor parallelism.
        layout: how, in words.
        operations: multiplications and additions of reading `length` tokens; `per_token`: of writing one more then.
    """

    weights: int
    cache: int
    transients: int
    runtime: int
    devices: int
    layout: str
    operations: float
    per_token: float

    @property
    def total(self) -> int:
        """Bytes over all devices."""
        return self.weights + self.cache + self.transients + self.runtime

    @property
    def each(self) -> int:
        """Bytes on each device."""
        return math.ceil(self.total / self.devices)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.total, "each": self.each}


def need(
    config: PretrainedConfig,
    length: int,
    *,
    dtype: torch.dtype,
    plan: Plan | None = None,
    chunk: int | None = CHUNK,
    devices: int = 1,
    pages: bool = False,
    on_cpu: bool = False,
) -> Need:
    """Reckon one request of `length` tokens, prompt and answer.

    Cache = layers * num_kv_heads * head_dim * (copies of keys + 1) * tokens, where a layer with a window keeps no more
    than that, and copies follow from the plan: 1, or 2 for two key maps (the second for the tokens of a window only,
    where no pages hold it). More devices than key heads hold each head more than once.

    Operations = 2 per parameter and token, and 4 * heads * head_dim per layer for each pair that is seen.

    Args:
        config: of a causal language model.
        dtype: of weights and cache.
        plan: of the extended layers; plain attention when left out.
        chunk: tokens read at once; None: all of them.
        devices: to spread it over.
        pages: an engine's, which hold every copy for all tokens.
        on_cpu: the device is a process on a CPU, whose own memory counts.

    Raises:
        ModelError: no causal language model, or heads that do not divide among the devices.
    """
    text = config.get_text_config()
    spec = spec_from_config(config)
    possible = [n for n in range(1, spec.num_heads + 1) if _divide(spec.num_heads, spec.num_kv_heads, n)]
    if devices not in possible:
        raise ModelError(
            f"{spec.num_heads} query and {spec.num_kv_heads} key heads do not divide among {devices} devices; take "
            f"{', '.join(map(str, possible))}"
        )
    matrices, parameters = count_parameters(config)
    window = int(getattr(text, "sliding_window", None) or length)
    tokens = [min(length, window) if kind == "sliding" else length for kind in spec.layer_kinds]
    keys = max(spec.num_kv_heads, devices) * spec.head_dim
    near = near_tokens(plan)
    if pages and near:
        near = length
    held = 2 * keys * sum(tokens) + keys * min(near, length) * spec.layer_kinds.count("full")
    part = length if chunk is None else min(chunk, length)
    seen = sum(_pairs(length, n) for n in tokens)
    each_pair = 4.0 * spec.num_heads * spec.head_dim
    return Need(
        weights=dtype.itemsize * parameters,
        cache=dtype.itemsize * held,
        transients=reading(config, part, dtype, on_cpu=on_cpu),
        runtime=RUNTIME if on_cpu else 0,
        devices=devices,
        layout="a process on a CPU" if on_cpu else _layout(spec.num_kv_heads, devices),
        operations=2.0 * matrices * length + each_pair * seen,
        per_token=2.0 * matrices + each_pair * sum(tokens),
    )


def near_tokens(plan: Plan | None) -> int:
    """Tokens of which a second copy of the key is held, as transformers' caches hold them."""
    if plan is None or not plan.takes_attention or unsupported(plan) is not None:
        return 0
    return max((reach for reach in reaches(plan).values() if reach is not None), default=0)


def count_parameters(config: PretrainedConfig) -> tuple[int, int]:
    """Parameters that every token is multiplied by (of a mixture of experts: those used), and all of them."""
    model = unloaded(config)
    total = sum(parameter.numel() for parameter in model.parameters())  # tied ones are given once
    used = float(sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1))
    text = config.get_text_config()
    experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None)
    chosen = getattr(text, "num_experts_per_tok", None)
    if experts and chosen:
        in_experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
        used -= in_experts * (1 - chosen / experts)
    embedding = model.get_input_embeddings().weight
    if embedding is not model.get_output_embeddings().weight:
        used -= embedding.numel()  # looked up, not multiplied
    return round(used), total


def dtype_of(name: str | None, config: PretrainedConfig) -> torch.dtype:
    """A dtype by its name; the configuration's when there is none; raises ModelError for another word."""
    if name is None:
        own = config.get_text_config().dtype
        return own if isinstance(own, torch.dtype) else torch.float32
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"{name!r} is no dtype; write float32, bfloat16 or float16")
    return found


def available() -> int:
    """Bytes that are free on this machine's first accelerator, or in its memory where it has none."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def lines(need: Need, length: int) -> Iterator[str]:
    """What was reckoned, for people."""
    parts = {"weights": need.weights, "keys and values": need.cache, "reading": need.transients}
    if need.runtime:
        parts["the process itself"] = need.runtime
    yield f"{length:,} tokens: {need.total / GIB:.2f} GiB"
    yield "  " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    yield f"  {need.layout}: {need.each / GIB:.2f} GiB on each"
    yield f"  {need.operations:.3g} operations to read it, {need.per_token:.3g} for each token written after it"


def _pairs(length: int, window: int) -> float:
    """Causal pairs of a layer that sees `window` tokens back."""
    return length * window - window * (window - 1) / 2 if window < length else length * (length + 1) / 2


def _divide(heads: int, kv_heads: int, devices: int) -> bool:
    """Whether each device has as many query heads, and as many key heads or a copy of one."""
    return heads % devices == 0 and (kv_heads % devices == 0 or devices % kv_heads == 0)


def _layout(kv_heads: int, devices: int) -> str:
    if devices == 1:
        return "one device"
    copied = devices / kv_heads
    shared = f", each key head on {copied:g} of them" if copied > 1 else ""
    return f"tensor parallel over {devices} devices{shared}"
