"""A method that only changes the frequency table: the rotary module of the model returns ours, row by row."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ropewalk.models import graph
from ropewalk.models.admission import Admission, Rows, refuse_beyond
from ropewalk.models.census import Census, RotaryColumns
from ropewalk.models.override import Override
from ropewalk.models.seam import Seam
from ropewalk.plan import Plan
from ropewalk.rotary import FrequencyTable

Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class TableRotary:
    """The rotary module of the extended layers, made to return the tables of the rows.

    Attributes:
        override: what puts the stock module back.
    """

    def __init__(self, seam: Seam, census: Census, admission: Admission) -> None:
        self.admission = admission
        self._seam = seam
        self._path, self._layer_type = census.rotary
        self._width = len(census.columns[census.rotary].pairs)
        self._number = graph.number(self)
        module = seam.rotaries[self._path]
        self._stock = module.forward
        self._ours = table_rotary(census.columns[census.rotary], admission.plans, census.spec.table, self._of_stock)
        self.override = Override(module, "forward", self._forward)

    def _of_stock(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        given = [] if self._layer_type is None else [self._layer_type]
        return self._seam.pair(self._path, self._stock(x, position_ids, *given))

    def _forward(self, x: Tensor, position_ids: Tensor, asked: str | None = None, **named: Any) -> Any:
        asked = named.get("layer_type", asked)
        if asked != self._layer_type:
            return self._stock(x, position_ids, asked)
        if self._seam.rotates_by_complex(self._path):
            x = x.new_empty(x.shape, dtype=torch.float32)  # complex numbers are of two of these
        if torch.compiler.is_compiling():
            cos, sin = graph.turn(self._number, x.detach(), position_ids, self._width)
        else:
            cos, sin = self._ours(x, position_ids)
        return self._seam.as_stock(self._path, cos, sin)

    def called(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Entry from a graph that torch.compile made, which looks at the limits of the rows here."""
        limits = self.admission.limits(len(x))
        for row, last in enumerate(position_ids.expand(len(x), -1).amax(-1).tolist() if limits else ()):
            refuse_beyond(limits, [row], last + 1)
        return self._ours(x, position_ids)


def table_rotary(columns: RotaryColumns, rows: Rows, own: FrequencyTable, stock: Rotary) -> Rotary:
    """A rotary forward that returns each row's own table: (x, position_ids [B or 1, T]) -> cos, sin [B or 1, T, width].

    Angles are built in float64; the result has x's dtype, like the stock module's. A row with the model's own table
    gets what the stock module returns, bit for bit.

    Args:
        own: the model's table.
        stock: the stock forward.
    """
    pairs = torch.tensor(columns.pairs)

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        plans = rows(x.shape[0])
        kept = [plan.table == own for plan in plans]
        if all(kept):
            return stock(x, position_ids)
        cos, sin = built(x, position_ids, plans)
        if any(kept):
            of_stock = torch.tensor(kept, device=x.device)[:, None, None]
            cos, sin = (torch.where(of_stock, *pair) for pair in zip(stock(x, position_ids), (cos, sin), strict=True))
        return cos, sin

    def built(x: Tensor, position_ids: Tensor, plans: list[Plan]) -> tuple[Tensor, Tensor]:
        where = torch.device("cpu") if x.device.type == "mps" else x.device  # MPS has no float64
        if len(set(plans)) == 1:
            plans = plans[:1]
        theta = torch.stack([plan.table.theta() for plan in plans]).to(where)  # [rows, pairs]
        scaling = torch.tensor([plan.table.attention_scaling for plan in plans], device=where)
        return turned(x, position_ids, theta, scaling, pairs)

    return forward


def turned(x: Tensor, position_ids: Tensor, theta: Tensor, scaling: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin as a model's rotary module returns them, [B or 1, T, width] in x's dtype; gradients reach theta.

    Args:
        position_ids: [B or 1, T], whole or not.
        theta: radians per token, float64 [B or 1, pairs], where angles are built.
        scaling: factor on cos and sin, [B or 1].
        pairs: which pair every column belongs to, [width].
    """
    angles = (position_ids[:, :, None].to(theta) * theta[:, None, :])[:, :, pairs.to(theta.device)]
    scaling = scaling[:, None, None]
    return (angles.cos() * scaling).to(x), (angles.sin() * scaling).to(x)
