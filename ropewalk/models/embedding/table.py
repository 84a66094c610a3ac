"""The position table of an encoder: where it is, and how the model counts positions, found by one run of the model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ropewalk.errors import ModelError
from ropewalk.models.census import quietly
from ropewalk.models.override import Override
from ropewalk.models.seam import name_of

PROBE = 5  # tokens of the probe, the last one padding


@dataclass(frozen=True)
class PositionTable:
    """The position table of one encoder.

    Attributes:
        embedding: its module.
        offset: row of the first token's position: 0 in BERT, 2 in RoBERTa.
        pretrained_length: positions, from `offset` on, that texts may use.
        padding: the row that padding tokens take whatever their place, where the model has one.
        padding_id: the token that the model knows padding by, where it has such a row.
    """

    embedding: nn.Embedding
    offset: int
    pretrained_length: int
    padding: int | None
    padding_id: int | None


def tables(model: nn.Module) -> Iterator[nn.Embedding]:
    """Every module of the name that transformers gives to a table of absolute positions."""
    for path, module in model.named_modules():
        if path.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            yield module


def probe_tokens(model: PreTrainedModel) -> Tensor:
    """Token ids [1, PROBE] that are no padding, but for the last."""
    padding = model.config.pad_token_id or 0
    ids = [one for one in range(model.config.vocab_size - 1, -1, -1) if one != padding][: PROBE - 1]
    return torch.tensor([[*ids, padding]], device=model.device)


def read_table(model: PreTrainedModel, pretrained_length: int | None = None) -> PositionTable:
    """Find the table and watch one run of the stock model use it.

    Args:
        model: the base model of an encoder.
        pretrained_length: positions that were trained, where they are fewer than the table has.

    Raises:
        ModelError: no table, more than one, or one that is not used as a table of positions.
    """
    if getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False):
        raise ModelError(f"{name_of(model)} decodes; of models with a position table only encoders can be extended")
    found = list(tables(model))
    if len(found) != 1:
        raise ModelError(f"{name_of(model)} has {len(found)} position tables, wanted one; it cannot be extended")
    (embedding,) = found
    seen: list[list[int]] = []

    def watched(ids: Tensor) -> Tensor:
        seen.append(ids.reshape(-1)[-PROBE:].tolist())
        return stock(ids)

    override = Override(embedding, "forward", watched)
    stock = override.original
    try:
        with quietly(model):
            model(input_ids=probe_tokens(model))
    finally:
        override.restore()
    if len(seen) != 1 or seen[0][:-1] != list(range(seen[0][0], seen[0][0] + PROBE - 1)):
        raise ModelError(f"{name_of(model)} cannot be extended: it does not look its positions up one by one in order")
    offset, last = seen[0][0], seen[0][-1]
    padded = last != offset + PROBE - 1
    available = embedding.num_embeddings - offset
    length = available if pretrained_length is None else pretrained_length
    if not 1 <= length <= available:
        raise ModelError(
            f"{name_of(model)} has a table of {available} positions; pretrained_length must be between 1 and "
            f"{available}, got {length}"
        )
    return PositionTable(
        embedding, offset, length, last if padded else None, model.config.pad_token_id if padded else None
    )
