"""TableExtension: a longer position table attached to an encoder, and how to take it off."""

from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from ropewalk.errors import ModelError
from ropewalk.methods.tables import TableMethod
from ropewalk.models.admission import arguments
from ropewalk.models.census import quietly
from ropewalk.models.embedding.rows import place, visible
from ropewalk.models.embedding.scale import LogN
from ropewalk.models.embedding.table import PositionTable, probe_tokens
from ropewalk.models.huggingface import MARK
from ropewalk.models.override import Override
from ropewalk.models.seam import name_of


class TableExtension:
    """A method attached to an encoder with a position table. `remove()` or leaving the context restores it exactly.

    Attributes:
        model: the extended encoder.
        requested: the method as it was asked for.
        method: the method with every field filled.
        target_length: tokens that texts may have.
        table: the position table that was found.
        rows: the longer table, with the rows before the first position, [offset + positions, hidden].
    """

    def __init__(
        self, model: PreTrainedModel, requested: TableMethod, target_length: int, table: PositionTable
    ) -> None:
        self.model = model
        self.requested = requested
        self.target_length = target_length
        self.table = table
        self.method = requested.resolve(table.pretrained_length, target_length)
        self.rows = longer(table, self.method, target_length)
        self._encoder = model.base_model
        self._scale: LogN | None = None
        self._encoder.__dict__[MARK] = self
        self._typed = any(name.endswith("token_type_ids") for name, _ in self._encoder.named_buffers())
        self._table = Override(table.embedding, "forward", self._look_up)
        # Not a hook: sentence-transformers calls `forward` itself, past every hook.
        self._call = Override(self._encoder, "forward", self._forward)
        if self.method.log_n:
            try:
                self._scale = LogN(self._encoder, table.pretrained_length)
            except ModelError:
                self.remove()
                raise

    def _look_up(self, ids: Tensor) -> Tensor:
        weight = self.table.embedding.weight
        if self.rows.device != weight.device or self.rows.dtype != weight.dtype:
            self.rows = self.rows.to(weight)
        return functional.embedding(ids, self.rows)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        """The encoder's forward, told the row of every token; positions that are given are rows of the longer table."""
        given = arguments(self._call.original, args, kwargs)
        given.pop("kwargs", None)  # they stand among the others too
        tokens = given.get("input_ids")
        of = tokens if tokens is not None else given.get("inputs_embeds")
        if of is None:
            return self._call.original(*args, **kwargs)  # the model says what it misses
        shape = (of.shape[0], of.shape[1])
        there = visible(self.table, tokens, given.get("attention_mask"), shape).to(of.device)
        placed = place(self.table, there, stride=self.method.stride, target_length=self.target_length)
        if given.get("position_ids") is None:
            given["position_ids"] = placed.rows
        if self._typed and given.get("token_type_ids") is None:  # its own zeros end with its table
            given["token_type_ids"] = torch.zeros(shape, dtype=torch.int64, device=of.device)
        if self._scale is not None:
            self._scale.admit(placed.lengths)
        return self._call.original(**given)

    def verify(self, stock: Tensor) -> None:
        """Remove it and raise ModelError unless a short text gives what it gave before, to the bit.

        Args:
            stock: `short_text` of the model as it was.
        """
        try:
            found = short_text(self._encoder, stock.shape[1])
        except BaseException:
            self.remove()
            raise
        if not torch.equal(found, stock):
            self.remove()
            raise ModelError(
                f"{name_of(self.model)} cannot be extended: with the longer table a short text gives another result"
            )

    def __enter__(self) -> "TableExtension":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TableExtension":
        raise ModelError(
            f"an extended {name_of(self.model)} cannot be copied: two models would share one extension; "
            "remove() the extension, copy the model, and extend both"
        )

    def describe(self) -> str:
        """What is attached, which parameters were chosen and why, in lines for people."""
        table, length = self.table, self.table.pretrained_length
        lines = [
            f"{self.requested} on {name_of(self.model)}: trained on {length} tokens, target {self.target_length}",
            f"  position table: {table.embedding.num_embeddings} rows, the first position in row {table.offset}; "
            f"{len(self.rows) - table.offset} positions in its place",
        ]
        for name, (value, reason) in self.requested.why(length, self.target_length).items():
            lines.append(f"  {name} = {value}: {reason}")
        lines.append(f"  texts of up to {length} tokens give what the original gives, whatever stands in their batch")
        return "\n".join(lines)

    def citation(self) -> str:
        """BibTeX of the attached method."""
        return self.method.bibtex

    def remove(self) -> None:
        """Take the method off: the model is the stock model again, exactly. A second call does nothing."""
        if self._encoder.__dict__.get(MARK) is not self:
            return
        del self._encoder.__dict__[MARK]
        self._call.restore()
        self._table.restore()
        if self._scale is not None:
            self._scale.remove()


def short_text(encoder: PreTrainedModel, most: int) -> Tensor:
    """The last hidden state of one short text of `most` tokens or fewer, without its padding, [1, tokens, hidden]."""
    tokens = probe_tokens(encoder)[:, :-1][:, :most]
    with quietly(encoder):
        state: Tensor = encoder(input_ids=tokens).last_hidden_state
    return state


def longer(table: PositionTable, method: TableMethod, target_length: int) -> Tensor:
    """The table that a filled method makes, in the precision of the original, [offset + positions, hidden]."""
    weight = table.embedding.weight.detach()
    original = weight[table.offset : table.offset + table.pretrained_length].double().cpu().numpy()
    count = max(target_length, (table.pretrained_length - 1) * method.stride + 1)
    rows = torch.from_numpy(np.ascontiguousarray(method.rows(original, count))).to(weight)
    return torch.cat([weight[: table.offset], rows])
