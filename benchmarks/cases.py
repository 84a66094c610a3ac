"""Benchmark cases: what is timed, what it is compared with, and the check that must pass first."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ropewalk.attention import BACKENDS, Inputs
from ropewalk.attention.rotated import RotatedKeys
from ropewalk.errors import BackendError
from ropewalk.methods import parse
from ropewalk.rotary import RotarySpec, default_inv_freq, rotation

SHAPES = {"9/3x64": (9, 3, 64), "32/8x128": (32, 8, 128)}  # query heads / key heads x head_dim
METHODS = ("none", "self-extend", "dpe", "rerope", "string", "dca")
TRAINED = 8192
BASE = 100_000.0
CHECKED = 48  # queries compared with the float64 reference
TOLERANCE = 2e-2  # bf16 inputs and outputs of unit variance
STEPS = 16  # decode steps that are timed as one


@dataclass(frozen=True)
class Case:
    """One method and shape, prefill of `length` tokens or decode behind them; `run` and `baseline` want nothing."""

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


def decode_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype, *, held: bool = True) -> Case:
    """`STEPS` decode steps behind `length` tokens against stock: rotary of the new token, sdpa over rotated keys.

    Every side rotates the new key, writes it and the value into a cache that has room, and attends: what a layer does
    in a step, without the projections. With held=False the cache holds un-rotated keys, all rotated at every step.
    """
    spec = spec_of(shape)
    heads, kv_heads, width = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    total = length + STEPS
    query, key, value = (
        torch.randn(1, count, total, width, generator=generator).to(dtype) for count in (heads, kv_heads, kv_heads)
    )
    plan = parse(method).plan(spec, max(2 * TRAINED, total))
    engine = BACKENDS.get(backend)
    if engine.tables is None:
        raise BackendError(f"backend {backend!r} takes no rotated keys; time its prefill")
    cos, sin = rotation(torch.arange(total, dtype=torch.float64)[:, None], spec.table.theta())
    cos, sin = (torch.cat((t, t), -1)[None].to(dtype) for t in (cos, sin))
    past = key[:, :, :length]
    cache = RotatedKeys(past, 1, plan, spec=spec, layer=0, origins=[0], tables=engine.tables)
    values, written = value.clone(), key.clone()
    turned = apply_rotary_pos_emb(key, key, cos, sin)[1]

    def step(slot: int) -> Tensor:
        here = slice(slot, slot + 1)
        values[:, :, here] = value[:, :, here]
        rotated = None
        if held:
            cache.append(key[:, :, here])
            rotated = cache.part(slice(None), slice(0, slot + 1))
        else:
            written[:, :, here] = key[:, :, here]
        keys, seen = written[:, :, : slot + 1], values[:, :, : slot + 1]
        inputs = Inputs(query[:, :, here], keys, seen, width**-0.5, rotated=rotated)
        return engine.attend(inputs, plan, spec, 0)[0]

    def run() -> Tensor:
        cache.crop(cache.length - length)
        return torch.cat([step(slot) for slot in range(length, total)], 2)

    def baseline() -> Tensor:
        found = []
        for slot in range(length, total):
            here = slice(slot, slot + 1)
            q, k = apply_rotary_pos_emb(query[:, :, here], key[:, :, here], cos[:, here], sin[:, here])
            turned[:, :, here], values[:, :, here] = k, value[:, :, here]
            keys, seen = turned[:, :, : slot + 1], values[:, :, : slot + 1]
            found.append(torch.nn.functional.scaled_dot_product_attention(q, keys, seen, enable_gqa=True))
        return torch.cat(found, 2)

    def check() -> float:
        """Largest difference to the float64 reference over un-rotated keys."""
        wanted, _ = BACKENDS.get("reference").attend(
            Inputs(query[:, :, length:], key, value, width**-0.5), plan, spec, 0
        )
        return float((run().float() - wanted.float()).abs().max())

    name = f"decode/{method}" if held else f"decode-unrotated/{method}"
    return Case(name, method, shape, length, run, baseline, check)
