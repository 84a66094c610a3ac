"""Texts of odd lengths for tiny models, ways to run a model over them, and parameters of every method."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.architectures import VOCABULARY

LENGTH = 117  # tokens, nearly twice the trained 64; within the reach of STRING, which has the shortest
TARGET = 121
POSITION_METHODS = {
    "self-extend": "self-extend:group=3,window=13",
    "rerope": "rerope:window=13",
    "leaky-rerope": "leaky-rerope:window=13,slope=2.7",
    "dpe": "dpe:window=13,scales=1/2/3.5/4",
    "string": "string:shift=63,window=3",
    "dca": "dca:chunk=37,window=7",
}
SPECIFICATIONS = POSITION_METHODS | {
    "none": "none",
    "pi": "pi",
    "ntk": "ntk",
    "ntk-liu": "ntk-liu",
    "dynamic-ntk": "dynamic-ntk:factor=1.5",
    "ntk-by-parts": "ntk-by-parts",
    "yarn": "yarn",
    "yarn-paper": "yarn-paper",
    "yarn-lambda": "yarn-lambda",
    "llama3": "llama3",
    "longrope": "longrope:long=1/1/1.3/1.5/2/2.5/3/4",
    "clex": "clex:whole=false",
}
COMBINED = {
    "dpe+yarn": "dpe:window=13,scales=1/1/1.5/3+yarn:factor=1.5",
    "string+yarn": "string+yarn",
    "self-extend+dynamic-ntk": "self-extend:window=13+dynamic-ntk",
    "dca+longrope": "dca:chunk=37,window=7+longrope:long=1/1/1.3/1.5/2/2.5/3/4",
    "rerope+pi": "rerope:window=13,log_n=false+pi:factor=1.2",
    "yarn with gain and log-n": "yarn:logit_scale=1.2,log_n=true",
}


def texts(*lengths: int, seed: int = 0) -> list[Tensor]:
    """One random text [1, length] per length; without the special tokens 0, 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (1, length), generator=generator) for length in lengths]


def padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """The rows as one batch padded on one side: ids and mask, int64 [B, T]."""
    width = max(row.shape[1] for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        where = slice(0, row.shape[1]) if side == "right" else slice(width - row.shape[1], width)
        ids[i, where], mask[i, where] = row[0], 1
    return ids, mask


@torch.no_grad()
def whole(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
    """Logits of one prefill, [B, T, V]."""
    return model(ids, use_cache=False, **inputs).logits


@torch.no_grad()
def pieces(model: PreTrainedModel, ids: Tensor, sizes: Sequence[int], mask: Tensor | None = None) -> Tensor:
    """Logits of cached pieces of the given sizes, the last one repeated to the end; [B, T, V].

    With a mask, positions count from each row's first token, as `generate` gives them.
    """
    logits, cache, start = [], None, 0
    while start < ids.shape[1]:
        stop = start + sizes[min(len(logits), len(sizes) - 1)]
        inputs: dict[str, Tensor] = {}
        if mask is not None:
            counted = (mask.cumsum(-1) - 1).clamp(min=0)
            inputs = {"attention_mask": mask[:, :stop], "position_ids": counted[:, start:stop]}
        out = model(ids[:, start:stop], past_key_values=cache, use_cache=True, **inputs)
        logits.append(out.logits)
        cache, start = out.past_key_values, stop
    return torch.cat(logits, 1)
