"""A model whose rows are rotated each by a table of its own while it is trained."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ropewalk.errors import ModelError, TrainingError
from ropewalk.models.huggingface import MARK, read_model
from ropewalk.models.override import Override
from ropewalk.models.seam import name_of
from ropewalk.models.table import turned


class RowTables(ABC):
    """Tables by row put into a model's rotary module, as a context manager; leaving it takes them out again.

    Before every forward, `time` has to say which length factor each row has.

    Attributes:
        spec: the model's rotary embedding.
        time: t of every row of the next forward, [B].
        step: number of the training step, for messages.

    Raises:
        ModelError: a model that cannot be extended, that is extended already, or whose layers with a window share the
            rotary module.
    """

    def __init__(self, model: PreTrainedModel, *, pretrained_length: int | None = None) -> None:
        if model.__dict__.get(MARK) is not None:
            raise ModelError(
                f"this {name_of(model)} is extended with {model.__dict__[MARK].method}; remove() that first"
            )
        census, _, seam = read_model(model, pretrained_length)
        if any(
            layer.kind == "sliding" and layer.rotation is not None and layer.rotation.rotary == census.rotary
            for layer in census.layers
        ):
            raise ModelError(
                f"{name_of(model)} cannot be trained with tables by row: its layers with a window share the rotary "
                "module with the full ones; take another method"
            )
        path, self._layer_type = census.rotary
        self._rotary: nn.Module = seam.rotaries[path]
        self._seam, self._path = seam, path
        columns = census.columns[census.rotary]
        self._pairs = torch.tensor(columns.pairs)
        self.spec = census.spec
        self.time: Tensor | None = None
        self.step = 0
        self._override: Override | None = None

    @abstractmethod
    def tables(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """theta [B, pairs], float64, and the factor on cos and sin, [B], of rows at these length factors."""

    def __enter__(self) -> Self:
        self._override = Override(self._rotary, "forward", self._forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._override is not None
        self._override.restore()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """The stock model for as long as the context lasts."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def _forward(self, x: Tensor, position_ids: Tensor, asked: str | None = None, **named: str) -> Any:
        asked = named.get("layer_type", asked)
        if asked != self._layer_type:
            assert self._override is not None
            return self._override.original(x, position_ids, asked)
        if self.time is None or len(self.time) != x.shape[0]:
            raise TrainingError(
                f"a batch of {x.shape[0]} rows came without their length factors; set `time` before the forward"
            )
        theta, scaling = self.tables(self.time)
        if self._seam.rotates_by_complex(self._path):
            x = x.new_empty(0, dtype=torch.float32)  # complex numbers are of two of these
        return self._seam.as_stock(self._path, *turned(x, position_ids, theta, scaling, self._pairs))
