"""The identity self-test: the seam with plain positions and the model's own tables must give the stock model's logits.

Rotation, cache of un-rotated keys, layout and mask all go through the seam; the softmax is the family's own eager
function. In float32 the logits must be bit-equal to those of the stock model in eager mode.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ropewalk.errors import ModelError
from ropewalk.models.census import Census, Layer, quietly
from ropewalk.models.late_norms import normed
from ropewalk.models.mask import POSITION, dense_mask
from ropewalk.models.probe import Rotation
from ropewalk.models.seam import Call, Seam, device_of, name_of
from ropewalk.rotary import RotarySpec

TOLERANCE = {torch.float32: 0.0, torch.float64: 0.0}  # bit-equal; other dtypes below
ROUNDED = 2e-2  # of the largest logit: half-precision models whose own eager function rounds in another order


@dataclass(frozen=True)
class Comparison:
    """Largest difference between stock and seam logits, and the size of the logits."""

    difference: float
    largest: float
    dtype: torch.dtype

    @property
    def equal(self) -> bool:
        """Bit-equal in float32 and float64; within 2 % of the largest logit in half precision."""
        return self.difference <= TOLERANCE.get(self.dtype, ROUNDED * self.largest)


class Identity:
    """Executor that rotates by the stock tables and calls the family's own eager attention."""

    def __init__(self, seam: Seam, layers: tuple[Layer, ...]) -> None:
        self.seam = seam
        self.layers = layers

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        new = query.shape[2]
        assert call.position_ids is not None
        asked = call.position_ids.expand(query.shape[0], -1)
        number = mask[:, 0, POSITION]
        shifted = number + (asked[:, -1] - number.amax(1))[:, None]
        keys = asked if number.shape[1] == new else shifted.clamp(min=0)
        here = self.layers[layer]
        query, key = self._turn(here, query, asked), self._turn(here, key, keys)
        if here.norms is not None:
            query, key = normed(here.norms.query, query), normed(here.norms.key, key)
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if eager is None:
            raise ModelError(f"{name_of(self.seam.model)} has no eager attention function to compare with")
        additive = dense_mask(mask, new, query.dtype)
        rest: dict[str, Any] = {"scaling": call.scaling, "dropout": 0.0, "position_ids": call.position_ids, **call.rest}
        return eager(module, query, key, value, additive, **rest)[0]

    def _turn(self, layer: Layer, x: Tensor, positions: Tensor) -> Tensor:
        """x * cos + turned(x) * sin in the model's own dtype and order, [B, H, N, D]."""
        rotation = layer.rotation
        if rotation is None:
            return x
        cos, sin = self.seam.stock_rotary(rotation.rotary, x[:, 0], positions)
        if self.seam.rotates_by_complex(rotation.rotary[0]):
            return _by_complex(x, torch.complex(cos, sin), rotation)
        columns = list(rotation.columns)
        cos, sin = cos[:, None, :, columns].to(x.dtype), sin[:, None, :, columns].to(x.dtype)
        stop = rotation.start + rotation.rotary_dim
        block = x[..., rotation.start : stop]
        if rotation.layout == "half":
            half = rotation.rotary_dim // 2
            turned = torch.cat((-block[..., half:], block[..., :half]), -1)
        else:
            turned = torch.stack((-block[..., 1::2], block[..., 0::2]), -1).flatten(-2)
        return torch.cat((x[..., : rotation.start], block * cos + turned * sin, x[..., stop:]), -1)


def _by_complex(x: Tensor, turn: Tensor, rotation: Rotation) -> Tensor:
    """x times cos + i sin [B, N, pairs], neighbours taken for one complex number each, as such families do."""
    stop = rotation.start + rotation.rotary_dim
    block = x[..., rotation.start : stop].float()
    pairs = torch.view_as_complex(block.reshape(*block.shape[:-1], -1, 2))
    turned = torch.view_as_real(pairs * turn[:, None]).flatten(-2).to(x)
    return torch.cat((x[..., : rotation.start], turned, x[..., stop:]), -1)


def run(model: PreTrainedModel, spec: RotarySpec) -> Tensor:
    """Logits (or hidden states) of a short padded batch at its tokens, float32 [tokens, V].

    A causal model has a prefill and one cached token; an encoder, which has neither, one forward without its head.
    """
    vocabulary = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (2, 12), generator=generator).to(device_of(model))
    visible = torch.ones_like(ids)
    if model.dtype != torch.float64:  # transformers' own eager mask overflows on rows of padding there
        visible[1, :4] = 0
    if spec.bidirectional:
        return model.base_model(input_ids=ids, attention_mask=visible)[0].float()[visible.bool()]
    positions = (visible.cumsum(-1) - 1).clamp(min=0)
    first = model(input_ids=ids[:, :-1], attention_mask=visible[:, :-1], position_ids=positions[:, :-1], use_cache=True)
    second = model(
        input_ids=ids[:, -1:],
        attention_mask=visible,
        position_ids=positions[:, -1:],
        past_key_values=first.past_key_values,
        use_cache=True,
    )
    both = torch.cat([first[0], second[0]], 1).float()
    return both[visible.bool()]


def compare(seam: Seam, census: Census) -> Comparison:
    """Run the stock model in eager mode and the attached seam with the identity; leaves the seam as it was found."""
    model = seam.model
    executor = seam.executor
    with quietly(model):
        seam.executor = Identity(seam, census.layers)
        ours = run(model, census.spec)
        seam.executor = executor
        seam.detach()
        previous = model.config._attn_implementation
        model.set_attn_implementation("eager")
        stock = run(model, census.spec)
        model.set_attn_implementation(previous)
        seam.attach()
    return Comparison(float((ours - stock).abs().max()), float(stock.abs().max()), model.dtype)


def verify(seam: Seam, census: Census) -> Comparison:
    """`compare`, and ModelError naming the family when the two are not equal."""
    result = compare(seam, census)
    if not result.equal:
        raise ModelError(
            f"{name_of(seam.model)} cannot be extended: the identity self-test gives other logits than the stock model "
            f"(largest difference {result.difference:.3g})"
        )
    return result
