"""vLLM's rotary classes, each with a class in its place.

Every class of vLLM's rotary package that it builds through its registry of custom operators is replaced in one loop. A
rotary built without a setting becomes an instance of its own class again. With one, it hands queries and keys on
un-rotated, in the half layout whatever the model's is (a permutation of both, which no dot product sees), or, for a
method that is one table, rotates by that table.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.custom_op import CustomOp, op_registry_oot
from vllm.model_executor.layers import rotary_embedding

from ropewalk.errors import ModelError
from ropewalk.plan import PositionMap
from ropewalk.rotary import FrequencyTable, rotation
from ropewalk.serve.plugin import engine_served
from ropewalk.serve.served import Served

TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 2e-2}  # of cos and sin at position 1


def swap_rotaries() -> None:
    """Put a class in the place of every rotary class, by its exact name."""
    for name, stock in inspect.getmembers(rotary_embedding, inspect.isclass):
        if issubclass(stock, CustomOp) and name.endswith("RotaryEmbedding") and name not in op_registry_oot:
            swapped = type(f"Ropewalk{name}", (Swapped, stock), {"stock": stock})
            CustomOp.register_oot(name=name)(swapped)
            swapped.name = stock.name  # type: ignore[attr-defined]  # what `custom_ops` switches on and off


class Swapped:
    """Mixed in before a rotary class of vLLM."""

    stock: type
    rotary_dim: int
    head_size: int
    is_neox_style: bool
    cos_sin_cache: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        now, stock = engine_served(), self.stock
        if now is None or not now.takes_attention:
            self.__class__ = stock
        stock.__init__(self, *args, **kwargs)  # type: ignore[misc]
        if now is not None and is_extended(self, now) and not now.takes_attention:
            self.cos_sin_cache = table(now.plan.table, now.target_length, self.cos_sin_cache.dtype)

    def forward(self, positions: Tensor, query: Tensor, key: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self._half(query), None if key is None else self._half(key)

    forward_native = forward_cpu = forward_cuda = forward_hip = forward_xpu = forward

    def _half(self, x: Tensor) -> Tensor:
        """Queries or keys with their rotated dimensions in the half layout, in the shape that they came in."""
        if self.is_neox_style:
            return x
        heads = x.unflatten(-1, (-1, self.head_size)) if x.shape[-1] != self.head_size else x
        rotated = heads[..., : self.rotary_dim]
        parts = (rotated[..., 0::2], rotated[..., 1::2], heads[..., self.rotary_dim :])
        return torch.cat(parts, -1).reshape(x.shape)


def is_extended(rotary: Any, now: Served) -> bool:
    """True for the rotary of extended layers, False for that of layers with a window.

    Raises:
        ModelError: it rotates as neither of them.
    """
    own = getattr(rotary, "cos_sin_cache", torch.empty(0))[1:2]
    for extended, known in ((True, now.spec.table), (False, now.windowed)):
        wanted = table(known, 2, own.dtype)[1:]
        if own.shape == wanted.shape and (own - wanted).abs().max() <= TOLERANCE[own.dtype]:
            return extended
    raise ModelError(
        f"vLLM's {getattr(rotary, 'stock', type(rotary)).__name__} does not "
        "rotate as the model's configuration says; ropewalk's plug-in cannot run this model"
    )


def table(of: FrequencyTable, length: int, dtype: torch.dtype) -> Tensor:
    """cos and sin of the positions 0 ... length - 1 as vLLM keeps them, [length, 2 * pairs]."""
    positions = PositionMap()(torch.arange(length))[0]
    return torch.cat(rotation(positions, of.theta(), of.attention_scaling), -1).to(dtype)
