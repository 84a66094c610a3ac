"""NewRows: the rows of a longer position table that training may move, and the contrastive loss that moves them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ropewalk.models.embedding.extension import TableExtension
from ropewalk.models.embedding.rows import shifted
from ropewalk.train.embedding.pairs import DrawnPair

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class NewRows(nn.Module):
    """The rows of an extended encoder's table that stand between or behind the original ones, as one parameter.

    Its state is these rows alone, so that checkpoints are small and the optimizer knows nothing else. The encoder runs
    in evaluation mode: without dropout, a run that goes on needs no state of it.

    Attributes:
        rows: [new rows, hidden], float32.
    """

    index: Tensor

    def __init__(self, pipeline: "SentenceTransformer", extension: TableExtension, *, temperature: float) -> None:
        super().__init__()
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        table = extension.table
        new = np.concatenate([np.zeros(table.offset, bool), fresh(extension)])
        self.register_buffer("index", torch.from_numpy(np.flatnonzero(new)), persistent=False)
        self._original = extension.rows.detach().clone()
        self.rows = nn.Parameter(self._original[self.index].float().clone())
        self._held = (pipeline, extension)  # in a tuple, so that its weights are not ours
        self._loss = (MultipleNegativesRankingLoss(pipeline, scale=1 / temperature),)

    def table(self) -> Tensor:
        """The whole table with the new rows in it, [rows, hidden]."""
        original = self._original.to(self.rows.device)
        return original.index_copy(0, self.index, self.rows.to(original.dtype))

    def forward(self, query: dict[str, Tensor], passage: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch of pairs; every other passage of the batch is a wrong answer.

        Args:
            query: input_ids, attention_mask and position_ids, [B, T] each.
            passage: the same of the passages.
        """
        pipeline, extension = self._held
        extension.rows = self.table()
        embeddings = [pipeline(dict(one))["sentence_embedding"] for one in (query, passage)]
        labels = torch.arange(len(embeddings[0]), device=embeddings[0].device)
        return {"loss": self._loss[0].compute_loss_from_embeddings(embeddings, labels)}


def fresh(extension: TableExtension) -> np.ndarray:
    """Which rows from the first position on are no original ones in their place, bool [positions]."""
    count = len(extension.rows) - extension.table.offset
    new = np.ones(count, bool)
    new[: extension.table.pretrained_length * extension.method.stride : extension.method.stride] = False
    return new


def collate(drawn: Sequence[DrawnPair], *, extension: TableExtension, padding: int) -> dict[str, dict[str, Tensor]]:
    """Pad the queries and the passages of a batch, each with the rows of its positions.

    Returns:
        "query" and "passage", each with input_ids, attention_mask and position_ids, int64 [B, T].
    """
    result: dict[str, dict[str, Tensor]] = {}
    for place, name in enumerate(("query", "passage")):
        texts = [one.texts[place] for one in drawn]
        width = max(map(len, texts))
        ids = torch.tensor([text + [padding] * (width - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
        starts = torch.tensor([one.starts[place] for one in drawn])
        rows = shifted(extension.table, mask.bool(), starts)
        result[name] = {"input_ids": ids, "attention_mask": mask, "position_ids": rows}
    return result
