"""Benchmark cases: what is timed, what it is compared with, and the check that must pass first."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ropewalk.attention import BACKENDS, Inputs
from ropewalk.methods import parse
from ropewalk.rotary import RotarySpec, default_inv_freq, rotation

SHAPES = {"9/3x64": (9, 3, 64), "32/8x128": (32, 8, 128)}  # query heads / key heads x head_dim
METHODS = ("none", "self-extend", "dpe", "rerope", "string", "dca")
TRAINED = 8192
BASE = 100_000.0
CHECKED = 48  # queries compared with the float64 reference
TOLERANCE = 2e-2  # bf16 inputs and outputs of unit variance


@dataclass(frozen=True)
class Case:
    """One method, prefill of `length` tokens, one shape; `run` and `baseline` take no arguments."""

    name: str
    method: str
    shape: str
    length: int
    run: Callable[[], Tensor]
    baseline: Callable[[], Tensor]
    check: Callable[[], float]


def spec_of(shape: str) -> RotarySpec:
    """A Llama-like rotary embedding of the shape, trained on 8,192 tokens."""
    heads, kv_heads, width = SHAPES[shape]
    return RotarySpec(
        head_dim=width,
        rotary_dim=width,
        base=BASE,
        pretrained_length=TRAINED,
        num_heads=heads,
        num_kv_heads=kv_heads,
        num_layers=1,
        inv_freq=tuple(default_inv_freq(BASE, width)),
    )


def prefill_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype) -> Case:
    """Prefill under a method against stock: transformers' rotary in the model's dtype, then causal sdpa."""
    spec = spec_of(shape)
    heads, kv_heads, width = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, length, width, generator=generator).to(dtype) for count in (heads, kv_heads, kv_heads)
    )
    plan = parse(method).plan(spec, max(2 * TRAINED, length))
    engine = BACKENDS.get(backend)
    inputs = Inputs(query, key, value, width**-0.5)
    cos, sin = rotation(torch.arange(length, dtype=torch.float64)[:, None], spec.table.theta())
    cos, sin = (torch.cat((t, t), -1)[None].to(dtype) for t in (cos, sin))

    def run() -> Tensor:
        return engine.attend(inputs, plan, spec, 0)[0]

    def baseline() -> Tensor:
        q, k = apply_rotary_pos_emb(query, key, cos, sin)
        return torch.nn.functional.scaled_dot_product_attention(q, k, value, is_causal=True, enable_gqa=True)

    def check() -> float:
        """Largest difference to the float64 reference on the last queries."""
        last = Inputs(query[:, :, -CHECKED:], key, value, width**-0.5)
        wanted, _ = BACKENDS.get("reference").attend(last, plan, spec, 0)
        return float((run()[:, :, -CHECKED:].float() - wanted.float()).abs().max())

    return Case(f"prefill/{method}", method, shape, length, run, baseline, check)
