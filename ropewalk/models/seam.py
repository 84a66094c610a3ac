"""The seam: a model whose rotary modules rotate nothing, and whose attention is ours.

No forward of the model is replaced and no class is patched. The rotary modules of one model return cos = 1, sin = 0
(q * 1 + rotated(q) * 0 is exact), one attention function and one mask function are registered with transformers under
one name, and everything else (rotation, bands, what a cache holds) follows from what arrives there.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from ropewalk.errors import ModelError
from ropewalk.models.mask import ROWS, position_mask, sees_ahead, window_of
from ropewalk.models.override import Override
from ropewalk.models.probe import Capture, Records, RotaryKey, answer, probes

NAME = "ropewalk"
BINDING = "_ropewalk"  # where an attention module keeps its seam and layer, outside the registered submodules


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
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.rotaries = find_rotaries(model)
        self.executor: Executor | None = None
        self.layers: dict[nn.Module, int] = {}
        self.records: Records | None = None
        self._probe: str | None = None
        self._widths: dict[RotaryKey, int] = {}
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
        self._mark(())
        self.model.set_attn_implementation(self._previous)
        self._previous = None

    def _forward(self, path: str) -> Callable[..., tuple[Tensor, Tensor]]:
        def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
            return self._neutral((path, layer_type), x, position_ids)

        return forward

    def stock_rotary(self, rotary: RotaryKey, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, T, width] as the stock module makes them."""
        path, layer_type = rotary
        forward = self._overrides[path].original if path in self._overrides else self.rotaries[path].forward
        result = forward(x, position_ids) if layer_type is None else forward(x, position_ids, layer_type)
        if not isinstance(result, tuple):
            raise ModelError(f"{name_of(self.model)} cannot be extended: its rotary module returns complex numbers")
        return result

    def _neutral(self, rotary: RotaryKey, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        if position_ids.ndim == 2:
            self._positions = position_ids
        if self._probe is not None:
            assert self.records is not None
            cos, _ = self.stock_rotary(rotary, x, position_ids)
            widths = self.records.widths
            widths.setdefault(rotary, cos.shape[-1])
            before = list(widths)[: list(widths).index(rotary)]
            chosen = answer(self._probe, 1 + sum(widths[key] for key in before), cos.shape[-1])
            return chosen[0].to(cos).expand_as(cos), chosen[1].to(cos).expand_as(cos)
        shape = (*position_ids.shape[-2:], self._widths[rotary])
        return torch.ones(shape, dtype=x.dtype, device=x.device), torch.zeros(shape, dtype=x.dtype, device=x.device)

    def run_probes(self, forward: Callable[[], object]) -> Records:
        """Call `forward` (one token) once per probe and return what was seen; let go of modules that took no part."""
        self.records = Records()
        try:
            for self._probe in probes():
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
        for module in modules:
            module.__dict__[BINDING] = self

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
        assert self.executor is not None
        if call.position_ids is None:
            call.position_ids = self._positions
        return self.executor(self.layers[module], module, query, key, value, mask, call)

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
    width = query.shape[-1]
    scaling = call.pop("scaling", None)
    request = Call(
        call.pop("position_ids", None), width**-0.5 if scaling is None else scaling, call.pop("dropout", 0.0), call
    )
    return seam.attention(module, query, key, value, attention_mask, request).contiguous(), None
