"""The seam: a model whose rotary modules rotate nothing, and whose attention is ours.

No forward of the model is replaced and no class is patched. The rotary modules of one model return cos = 1, sin = 0
(q * 1 + rotated(q) * 0 is exact), one attention function and one mask function are registered with transformers under
one name, and everything else (rotation, bands, what a cache holds) follows from what arrives there.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from ropewalk.errors import BackendError, ModelError
from ropewalk.models import graph
from ropewalk.models.late_norms import LateNorm, Norms
from ropewalk.models.mask import ROWS, in_chunks, position_mask, sees_ahead, window_of
from ropewalk.models.override import Override
from ropewalk.models.probe import Capture, Records, RotaryKey, answer, probes

NAME = "ropewalk"
BINDING = "_ropewalk"  # where an attention module keeps its seam, outside the registered submodules
NUMBER = "_ropewalk_layer"  # and which layer it is


NO_DROPOUT = "attention dropout {} is not supported under a position method; set attention_dropout to 0"


class Executor(Protocol):
    """What is done with un-rotated queries and keys once they arrive."""

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: "Call"
    ) -> Tensor:
        """Attention output [B, T, H, V] of queries [B, H, T, D] over keys [B, K, S, D] and values [B, K, S, V]."""


class Call:
    """What else the model says when it calls for attention."""

    def __init__(self, position_ids: Tensor | None, scaling: float, dropout: float, rest: dict[str, Any]) -> None:
        self.position_ids = position_ids
        self.scaling = scaling
        self.dropout = dropout
        self.softcap: float | None = rest.get("softcap")
        self.sinks: Tensor | None = rest.get("s_aux")
        self.rest = rest


def find_rotaries(model: nn.Module) -> dict[str, nn.Module]:
    """Rotary modules by path, found by the name of their class."""
    return {path: m for path, m in model.named_modules() if type(m).__name__.endswith("RotaryEmbedding")}


def name_of(model: nn.Module) -> str:
    """The model type, for messages."""
    return getattr(getattr(model, "config", None), "model_type", type(model).__name__)


def device_of(model: PreTrainedModel) -> torch.device:
    """Where a forward runs. Offloaded weights lie on no device between forwards (accelerate), rotary tables do."""
    devices = [model.device, *(buffer.device for buffer in model.buffers())]
    return next((device for device in devices if device.type != "meta"), model.device)


class Seam:
    """The two cuts in one model, made by `attach` and undone by `detach`.

    Attributes:
        executor: carries attention out; None while the model is probed.
        layers: attention modules in the order in which the model calls them.
        norms: what attention modules would do after the rotation, and what is left to the executor.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.rotaries = find_rotaries(model)
        self.executor: Executor | None = None
        self.layers: dict[nn.Module, int] = {}
        self.norms: dict[nn.Module, Norms] = {}
        self.records: Records | None = None
        self.number = graph.number(self)
        self._probe: str | None = None
        self._widths: dict[RotaryKey, int] = {}
        self._complex: set[str] = set()
        self._overrides: dict[str, Override] = {}
        self._previous: str | None = None
        self._positions: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Seam":
        raise ModelError(
            f"an extended {name_of(self.model)} cannot be copied: two models would share one extension; "
            "remove() the extension, copy the model, and extend both"
        )

    def attach(self) -> None:
        """Make the two cuts; raises ModelError where the model does not let its attention be replaced."""
        AttentionInterface.register(NAME, attention_function)
        AttentionMaskInterface.register(NAME, position_mask)
        self._previous = self.model.config._attn_implementation
        self.model.set_attn_implementation(NAME)
        if self.model.config._attn_implementation != NAME:
            self._previous = None
            raise ModelError(
                f"{name_of(self.model)} cannot be extended: its attention is not called through transformers' "
                "AttentionInterface"
            )
        self._mark(self.layers or list(self.model.modules()))
        for norm in self._late():
            norm.lift()
        for path, module in self.rotaries.items():
            if not self._widths or path in {used for used, _ in self._widths}:
                self._overrides[path] = Override(module, "forward", self._forward(path))

    def detach(self) -> None:
        """Undo `attach`: the stock model, exactly."""
        if self._previous is None:
            return
        for override in self._overrides.values():
            override.restore()
        self._overrides.clear()
        for norm in self._late():
            norm.restore()
        self._mark(())
        self.model.set_attn_implementation(self._previous)
        self._previous = None

    def _late(self) -> list[LateNorm]:
        return [norm for norms in self.norms.values() for norm in (norms.query, norms.key) if norm is not None]

    def _forward(self, path: str) -> Callable[..., Any]:
        def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
            return self._neutral((path, layer_type), x, position_ids)

        return forward

    def stock_rotary(self, rotary: RotaryKey, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, T, width] as the stock module makes them."""
        path, layer_type = rotary
        forward = self._overrides[path].original if path in self._overrides else self.rotaries[path].forward
        return self.pair(path, forward(x, position_ids, *([] if layer_type is None else [layer_type])))

    def pair(self, path: str, result: Any) -> tuple[Tensor, Tensor]:
        """cos and sin from what the stock module at this path returned; the reverse of `as_stock`."""
        if isinstance(result, Tensor) and result.is_complex():
            self._complex.add(path)
            return result.real, result.imag
        if not isinstance(result, tuple):
            raise ModelError(f"{name_of(self.model)} cannot be extended: its rotary module returns no cos and sin")
        return result

    def rotates_by_complex(self, path: str) -> bool:
        """Whether a rotary module returns cos + i sin, for a product of complex numbers (Llama 4, DeepSeek-V2)."""
        return path in self._complex

    def as_stock(self, path: str, cos: Tensor, sin: Tensor) -> Any:
        """cos and sin in the form in which the model wants them from this module."""
        return torch.complex(cos.float(), sin.float()) if path in self._complex else (cos, sin)

    def _neutral(self, rotary: RotaryKey, x: Tensor, position_ids: Tensor) -> Any:
        if position_ids.ndim == 2:
            self._positions = position_ids
        if self._probe is not None:
            assert self.records is not None
            cos, _ = self.stock_rotary(rotary, x, position_ids)
            widths = self.records.widths
            widths.setdefault(rotary, cos.shape[-1])
            before = list(widths)[: list(widths).index(rotary)]
            chosen = answer(self._probe, 1 + sum(widths[key] for key in before), cos.shape[-1])
            return self.as_stock(rotary[0], *(part.to(cos).expand_as(cos) for part in chosen))
        shape = (*position_ids.shape[-2:], self._widths[rotary])
        one = torch.ones(shape, dtype=x.dtype, device=x.device)
        return self.as_stock(rotary[0], one, torch.zeros_like(one))

    def run_probes(self, forward: Callable[[], object], names: Sequence[str] = ()) -> Records:
        """Call `forward` (one token) once per probe and return what was seen; let go of modules that took no part."""
        self.records = Records()
        try:
            for self._probe in names or probes():
                forward()
        finally:
            self._probe = None
        self._widths = self.records.widths
        used = {path for path, _ in self._widths}
        for path in self._overrides.keys() - used:
            self._overrides.pop(path).restore()
        self._mark(self.layers)
        return self.records

    def _mark(self, modules: Iterable[nn.Module]) -> None:
        """Let the registered function find this seam from these modules, and from no others of the model."""
        for module in self.model.modules():
            module.__dict__.pop(BINDING, None)
            module.__dict__.pop(NUMBER, None)
        for module in modules:
            module.__dict__[BINDING] = self
            module.__dict__[NUMBER] = self.layers.get(module, -1)

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        """Entry from the registered function."""
        if mask is None or mask.dtype != torch.int64 or mask.ndim != 4 or mask.shape[2] != ROWS:
            raise ModelError(
                f"{name_of(self.model)}: the attention mask did not come through ropewalk's mask function "
                "(a 4-D mask given by hand, or a model that makes its own); pass a 2-D mask of padding"
            )
        if self._probe is not None:
            return self._record(module, query, key, value, mask)
        if call.position_ids is None:
            call.position_ids = self._positions
        if torch.compiler.is_compiling():
            if call.dropout:
                raise BackendError(NO_DROPOUT.format(call.dropout))
            if self.norms and torch.is_grad_enabled():
                raise BackendError(
                    "norms after the rotation have no gradients under torch.compile; use torch.no_grad()"
                )
            rest = (call.position_ids, call.scaling, call.softcap, call.sinks)
            return graph.attend(self.number, module.__dict__[NUMBER], query, key, value, mask, *rest)
        assert self.executor is not None
        return self.executor(self.layers[module], module, query, key, value, mask, call)

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
    ) -> Tensor:
        """Entry from a graph that torch.compile made."""
        if self.executor is None or self._previous is None:
            raise ModelError("this graph was compiled for an extension that was removed; compile it again")
        module = next(module for module, number in self.layers.items() if number == layer)
        call = Call(position_ids, scaling, 0.0, {"softcap": softcap, "s_aux": sinks})
        return self.executor(layer, module, query, key, value, mask, call).contiguous()

    def alone(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, call: Call) -> Tensor:
        """Attention of one text without padding, [1, T, H, V]: the last T of its S tokens are queried."""
        alone: Callable[..., Tensor] | None = getattr(self.executor, "alone", None)
        if alone is None:
            raise ModelError(f"{name_of(self.model)}: attention that is divided over processes takes no packed texts")
        return alone(self.layers[module], query, key, value, call)

    def _record(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Note what arrived and answer with the values, which no rotation touches: later layers see the same."""
        assert self.records is not None and self._probe is not None
        self.layers.setdefault(module, len(self.layers))
        seen = self.records.captures.setdefault(module, {})
        capture = Capture(
            query[0, :, 0].detach().cpu(),
            key[0, :, -1].detach().cpu(),
            window_of(mask),
            value.shape[-1],
            sees_ahead(mask),
            in_chunks(mask),
        )
        seen.setdefault(self._probe, capture)
        return value[:, :, -1:].repeat_interleave(query.shape[1] // value.shape[1], 1).transpose(1, 2)


def attention_function(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **call: Any
) -> tuple[Tensor, None]:
    """The function registered with transformers' AttentionInterface under `NAME`."""
    seam = module.__dict__.get(BINDING)
    if seam is None:
        raise ModelError("attention is set to 'ropewalk' on a model that is not extended; use ropewalk.extend")
    return seam.attention(module, query, key, value, attention_mask, call_of(query, call)).contiguous(), None


def call_of(query: Tensor, given: dict[str, Any]) -> Call:
    """What a model says when it calls for attention, from the keyword arguments that it gives."""
    scaling = given.pop("scaling", None)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Call(given.pop("position_ids", None), scaling, given.pop("dropout", 0.0), given)
