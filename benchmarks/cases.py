"""Benchmark cases: what is timed, what it is compared with, and the check that must pass first.

Tensors lie on torch's default device of the moment.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from benchmarks.authors import authors_decode
from ropewalk.attention import Backend, Inputs, choose
from ropewalk.attention.rotated import RotatedKeys, unsupported
from ropewalk.errors import BackendError
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec, default_inv_freq, rotation

SHAPES = {"9/3x64": (9, 3, 64), "32/8x128": (32, 8, 128)}  # query heads / key heads x head_dim
METHODS = ("none", "self-extend", "dpe", "rerope", "string", "dca")
TRAINED = 8192
BASE = 100_000.0
CHECKED = 48  # queries compared with the float64 reference
TOLERANCE = 2e-2  # bf16 inputs and outputs of unit variance
STEPS = 16  # decode steps that are timed as one
GROUPS = (1.0, 1.0, 1.0, 2.0, 4.0, 4.0, 8.0, 8.0)  # scales of DPE where it needs groups, as the authors have eight
STOCK = "stock sdpa and rotary"


@dataclass(frozen=True)
class Case:
    """One method and shape, prefill of `length` tokens or decode behind them; `run` and `baseline` want nothing.

    Attributes:
        backend: the backend that runs.
        against: what the baseline is.
    """

    name: str
    method: str
    shape: str
    length: int
    backend: str
    against: str
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


def plan_of(method: str, spec: RotarySpec, length: int) -> Plan:
    """The plan of a method, or of "dpe-masked": DPE in which half of each head's pairs are key dimensions."""
    if method == "dpe-masked":
        mask = np.random.default_rng(0).random((1, spec.num_heads, spec.pairs)) < 0.5
        return DPE(window=1024, scales=GROUPS, mask=Grid(mask)).plan(spec, length)
    if method == "dpe-groups":
        return DPE(window=1024, scales=GROUPS).plan(spec, length)
    return parse(method).plan(spec, length)


def _engine(backend: str, plan: Plan, dtype: torch.dtype) -> Backend:
    return choose(backend, plan, device=torch.get_default_device(), dtype=dtype)


def _tensors(shape: str, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    heads, kv_heads, width = SHAPES[shape]
    generator, device = torch.Generator("cpu").manual_seed(0), torch.get_default_device()
    query, key, value = (
        torch.randn(1, count, length, width, generator=generator, device="cpu").to(device, dtype)
        for count in (heads, kv_heads, kv_heads)
    )
    return query, key, value


def _stock_tables(spec: RotarySpec, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    cos, sin = rotation(torch.arange(length, dtype=torch.float64)[:, None], spec.table.theta())
    return torch.cat((cos, cos), -1)[None].to(dtype), torch.cat((sin, sin), -1)[None].to(dtype)


def _difference(ours: Tensor, inputs: Inputs, plan: Plan, spec: RotarySpec) -> float:
    """Largest difference to the float64 reference over un-rotated keys."""
    reference = choose("reference", plan, device=ours.device, dtype=torch.float64)
    wanted, _ = reference.attend(inputs, plan, spec, 0)
    return float((ours.float() - wanted.float()).abs().max())


def prefill_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype) -> Case:
    """Prefill under a method against stock: transformers' rotary in the model's dtype, then causal sdpa."""
    spec = spec_of(shape)
    query, key, value = _tensors(shape, length, dtype)
    plan = plan_of(method, spec, max(2 * TRAINED, length))
    engine = _engine(backend, plan, dtype)
    inputs = Inputs(query, key, value, spec.head_dim**-0.5)
    cos, sin = _stock_tables(spec, length, dtype)

    def run() -> Tensor:
        return engine.attend(inputs, plan, spec, 0)[0]

    def baseline() -> Tensor:
        q, k = apply_rotary_pos_emb(query, key, cos, sin)
        return torch.nn.functional.scaled_dot_product_attention(q, k, value, is_causal=True, enable_gqa=True)

    def check() -> float:
        last = replace(inputs, query=query[:, :, -CHECKED:])
        return _difference(run()[:, :, -CHECKED:], last, plan, spec)

    return Case(f"prefill/{method}", method, shape, length, engine.name, STOCK, run, baseline, check)


def bands_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype) -> Case:
    """Prefill under a method against the same backend with one band: what the bands cost."""
    case, plain = (prefill_case(name, shape, length, backend, dtype) for name in (method, "none"))
    return replace(case, name=f"bands/{method}", against="the same backend with one band", baseline=plain.run)


def decode_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype, *, held: bool = True) -> Case:
    """`STEPS` decode steps behind `length` tokens against stock: rotary of the new token, sdpa over rotated keys.

    Every side rotates the new key, writes it and the value into a cache that has room, and attends: what a layer does
    in a step, without the projections. With held=False the cache holds un-rotated keys, all rotated at every step.
    """
    spec = spec_of(shape)
    width = spec.head_dim
    total = length + STEPS
    query, key, value = _tensors(shape, total, dtype)
    plan = plan_of(method, spec, max(2 * TRAINED, total))
    engine = _engine(backend, plan, dtype)
    reason = unsupported(plan) if engine.tables is not None else f"backend {backend!r} takes no rotated keys"
    if held and reason is not None:
        raise BackendError(f"{method}: {reason}; time it with --kind decode-unrotated")
    cos, sin = _stock_tables(spec, total, dtype)
    cache = None
    if held:
        assert engine.tables is not None
        cache = RotatedKeys(key[:, :, :length], 1, plan, spec=spec, layer=0, origins=[0], tables=engine.tables)
    values, written = value.clone(), key.clone()
    turned = apply_rotary_pos_emb(key, key, cos, sin)[1]

    def step(slot: int) -> Tensor:
        here = slice(slot, slot + 1)
        values[:, :, here] = value[:, :, here]
        rotated = None
        if cache is not None:
            cache.append(key[:, :, here])
            rotated = cache.part(slice(None), slice(0, slot + 1))
        else:
            written[:, :, here] = key[:, :, here]
        keys, seen = written[:, :, : slot + 1], values[:, :, : slot + 1]
        inputs = Inputs(query[:, :, here], keys, seen, width**-0.5, rotated=rotated)
        return engine.attend(inputs, plan, spec, 0)[0]

    def run() -> Tensor:
        if cache is not None:
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
        return _difference(run(), Inputs(query[:, :, length:], key, value, width**-0.5), plan, spec)

    name = f"decode/{method}" if held else f"decode-unrotated/{method}"
    return Case(name, method, shape, length, engine.name, STOCK, run, baseline, check)


def authors_case(method: str, shape: str, length: int, backend: str, dtype: torch.dtype) -> Case:
    """What decoding costs the way the authors of DPE do it, against stock: the whole cache is rotated at every step."""
    case = decode_case("dpe-groups", shape, length, backend, dtype)
    spec = spec_of(shape)
    query, key, value = _tensors(shape, length + STEPS, dtype)
    plan = plan_of("dpe-groups", spec, max(2 * TRAINED, length + STEPS))
    steps = range(length + 1, length + STEPS + 1)

    def run() -> Tensor:
        found = [authors_decode(query[:, :, n - 1 : n], key[:, :, :n], value[:, :, :n], plan, spec) for n in steps]
        return torch.cat(found, 2)

    def check() -> float:
        return _difference(run(), Inputs(query[:, :, length:], key, value, spec.head_dim**-0.5), plan, spec)

    return replace(case, name="decode-authors/dpe-groups", backend="authors' data flow", run=run, check=check)
