"""A tiny Llama whose attention is the oracle: distances go in, logits come out; nothing of the package runs."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from tests.oracles.attention import attend


def oracle_logits(model: PreTrainedModel, ids: Tensor, distance: Tensor, query_scale: Tensor | None = None) -> Tensor:
    """Logits [B, T, V] under effective distances [1, T, T, pairs or 1]; the model is put back afterwards."""
    rotary: Any = model.model.rotary_emb
    implementation = model.config._attn_implementation
    visible = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float, **ignored: Any
    ) -> tuple[Tensor, None]:
        out, _ = attend(
            query,
            key,
            value,
            rotary.inv_freq.double(),
            distance,
            scaling=scaling,
            layout="half",
            visible=visible,
            query_scale=query_scale,
        )
        return out.to(query).transpose(1, 2).contiguous(), None

    def neutral(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*position_ids.shape, 2 * len(rotary.inv_freq))
        return torch.ones(shape), torch.zeros(shape)

    AttentionInterface.register("ropewalk-test-oracle", attention)
    rotary.forward = neutral
    model.set_attn_implementation("ropewalk-test-oracle")
    try:
        with torch.no_grad():
            return model(ids, use_cache=False).logits
    finally:
        del rotary.forward
        model.set_attn_implementation(implementation)
