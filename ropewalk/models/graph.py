"""What torch.compile sees of an extension: a few operations that it does not look into.

Attention under a plan reads on the host (which tokens are padding, which rows have which plan), calls kernels of
several libraries and keeps rotated keys in Python objects. Traced, every one of these would break the graph; as
operations of their own they run at every call as they do without torch.compile, so that a compiled forward gives what
an eager one gives, `fullgraph=True` or not.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ropewalk.errors import BackendError, ModelError

NAMESPACE = "ropewalk_graph"
_UNSEEN = (torch.Tag.cudagraph_unsafe,)  # they read on the host, which no recorded CUDA graph does

CHANGED = "a compiled forward met a cache that was changed beside it; take a new cache"

_numbers = itertools.count()
_known: WeakValueDictionary[int, Any] = WeakValueDictionary()  # a graph holds numbers, no Python objects


class Attends(Protocol):
    """What `attend` calls: a seam."""

    def called(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        position_ids: Tensor | None,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor: ...


def number(thing: object) -> int:
    """A number that a graph can hold in place of an object, which it does not keep alive."""
    found = next(_numbers)
    _known[found] = thing
    return found


def thing(found: int) -> Any:
    """The object of a number; ModelError where it is gone."""
    try:
        return _known[found]
    except KeyError:
        raise ModelError("this graph was compiled for an extension or a cache that is gone; compile it again") from None


@torch.library.custom_op(f"{NAMESPACE}::attend", mutates_args=(), tags=_UNSEEN)
def attend(
    seam: int,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    position_ids: Tensor | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention [B, T, H, V] under the extension of a seam; keys and values may be what `append` returned."""
    if key.dtype == torch.int64:
        layer_of_cache = thing(int(key.flatten()[0]))
        key = layer_of_cache.stand_in(query, value.shape[2])
        value = layer_of_cache.held_values if value.dtype == torch.int64 else value
    called: Attends = thing(seam)
    return called.called(layer, query, key, value, mask, position_ids, scaling, softcap, sinks)


@attend.register_fake
def _(
    seam: int,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    position_ids: Tensor | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    batch, heads, new, _ = query.shape
    return query.new_empty(batch, new, heads, value.shape[-1])


@torch.library.custom_op(f"{NAMESPACE}::attend_backward", mutates_args=(), tags=_UNSEEN)
def attend_backward(
    gradient: Tensor,
    seam: int,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    position_ids: Tensor | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> list[Tensor]:
    """Gradients of queries, keys, values and sinks: the forward is done again, where autograd sees it."""
    leaves = [x.detach().requires_grad_() for x in (query, key, value)]
    extra = None if sinks is None else sinks.detach().requires_grad_()
    with _seen_by_autograd():
        output = thing(seam).called(layer, *leaves, mask, position_ids, scaling, softcap, extra)
        found = torch.autograd.grad(output, leaves if extra is None else [*leaves, extra], gradient)
    return [of_one.contiguous() for of_one in found]


@contextlib.contextmanager
def _seen_by_autograd() -> Iterator[None]:
    """Autograd does not look into an operation unless it is told to."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradOther", "AutogradCPU", "AutogradCUDA"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield


@attend_backward.register_fake
def _(
    gradient: Tensor,
    seam: int,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    position_ids: Tensor | None,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (query, key, value, sinks) if x is not None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    seam, layer, query, key, value, mask, position_ids, scaling, softcap, sinks = inputs
    ctx.save_for_backward(query, key, value, mask, position_ids, sinks)
    ctx.plain = (seam, layer, scaling, softcap)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, mask, position_ids, sinks = ctx.saved_tensors
    seam, layer, scaling, softcap = ctx.plain
    found = attend_backward(gradient, seam, layer, query, key, value, mask, position_ids, scaling, softcap, sinks)
    of_sinks = None if sinks is None else found[3]
    return None, None, *found[:3], None, None, None, None, of_sinks


attend.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op(f"{NAMESPACE}::append", mutates_args=(), tags=_UNSEEN)
def append(layer: Tensor, held: Tensor, keys: Tensor, values: Tensor | None) -> Tensor:
    """Add un-rotated keys [B, K, T, D] to those that a cache layer holds rotated, and values where it keeps them.

    Args:
        layer: the number of the cache layer, int64 of no dimensions.
        held: tokens that it holds, int64 of no dimensions.

    Returns: the number, which stands for all that the layer holds.
    """
    thing(int(layer)).add(int(held), keys, values)
    return layer.clone()


@append.register_fake
def _(layer: Tensor, held: Tensor, keys: Tensor, values: Tensor | None) -> Tensor:
    return torch.empty_like(layer)


def refuse_gradients(*tensors: Tensor) -> None:
    """Raise BackendError where autograd would want what a compiled forward gives to a rotated cache."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        raise BackendError("keys in a cache have no gradients under torch.compile; run it under torch.no_grad()")


@torch.library.custom_op(f"{NAMESPACE}::turn", mutates_args=(), tags=_UNSEEN)
def turn(rotary: int, x: Tensor, position_ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """cos and sin [B, T, width] of a rotary module whose table is ours, or each row's own."""
    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = thing(rotary).called
    shape = (x.shape[0], position_ids.shape[-1], width)
    cos, sin = (part.expand(shape).contiguous() for part in forward(x, position_ids))
    return cos.clone(), sin.clone()


@turn.register_fake
def _(rotary: int, x: Tensor, position_ids: Tensor, width: int) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], position_ids.shape[-1], width)
    return x.new_empty(shape), x.new_empty(shape)
