"""A tiny model whose attention is the oracle: distances go in, logits come out; nothing of the package runs."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from tests.oracles.attention import attend


def oracle_logits(
    model: PreTrainedModel,
    ids: Tensor,
    distance: Tensor,
    query_scale: Tensor | None = None,
    *,
    reach: int | None = None,
    layout: str = "half",
    start: int = 0,
    by_complex: bool = False,
) -> Tensor:
    """Logits, or hidden states of a base model, [B, T, V]; the model is put back afterwards.

    Args:
        distance: effective distances [1, T, T, pairs or 1]; some above the diagonal make it an encoder.
        query_scale: [T].
        reach: the largest distance that a sliding layer of an encoder sees; its own distances are plain.
        layout, start: which dimensions of a head are pairs, and the first of them.
        by_complex: the rotary module returns complex numbers.
    """
    body: Any = model.base_model if hasattr(model.base_model, "rotary_emb") else model.model
    rotary: Any = body.rotary_emb
    implementation = model.config._attn_implementation
    tokens = torch.arange(ids.shape[1])
    plain = (tokens[:, None] - tokens)[None]
    looks_ahead = bool(distance[:, 0].any())
    visible = torch.ones_like(plain, dtype=torch.bool) if looks_ahead else plain >= 0

    def theta(kind: str) -> Tensor:
        return getattr(rotary, "inv_freq" if hasattr(rotary, "inv_freq") else f"{kind}_attention_inv_freq").double()

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float, **ignored: Any
    ) -> tuple[Tensor, None]:
        slides = reach is not None and getattr(module, "sliding_window", None) is not None
        out, _ = attend(
            query,
            key,
            value,
            theta("sliding" if slides else "full"),
            plain[..., None] if slides else distance,
            scaling=scaling,
            layout=layout,
            rotary_start=start,
            visible=plain.abs() <= reach if slides else visible,
            query_scale=None if slides else query_scale,
        )
        return out.to(query).transpose(1, 2).contiguous(), None

    def neutral(x: Tensor, position_ids: Tensor, layer_type: str = "") -> Any:
        if by_complex:
            return torch.ones(*position_ids.shape, len(theta("full")), dtype=torch.complex64)
        shape = (*position_ids.shape, 2 * len(theta("full")))
        return torch.ones(shape), torch.zeros(shape)

    AttentionInterface.register("ropewalk-test-oracle", attention)
    rotary.forward = neutral
    model.set_attn_implementation("ropewalk-test-oracle")
    try:
        with torch.no_grad():
            return model(ids, use_cache=False)[0]
    finally:
        del rotary.forward
        model.set_attn_implementation(implementation)
