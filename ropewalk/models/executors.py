"""What an extension puts behind the seam: banded attention over un-rotated keys, or a table in the rotary module."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ropewalk.attention.base import Inputs, choose
from ropewalk.errors import BackendError
from ropewalk.models.admission import Limits, Rows, refuse_beyond
from ropewalk.models.census import Census, Layer, RotaryColumns
from ropewalk.models.mask import Sequence, sequences, window_of
from ropewalk.models.seam import Call
from ropewalk.plan import Band, Plan, Region
from ropewalk.rotary import RotarySpec


class Banded:
    """Executor: attention under each row's plan on the extended layers, plain attention on the others.

    Args:
        census: the layers.
        rows: the plan of every row.
        backend: name of the backend, or "auto".
        limits: the tokens that every row may reach.
    """

    def __init__(self, census: Census, rows: Rows, backend: str, limits: Limits) -> None:
        self.census = census
        self.rows = rows
        self.limits = limits
        self.backend = backend
        self._cuts: list[tuple[Tensor, int, list[Sequence]]] = []

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        if call.dropout:
            raise BackendError(
                f"attention dropout {call.dropout} is not supported under a position method; set attention_dropout to 0"
            )
        here = self.census.layers[layer]
        batch, heads, new, _ = query.shape
        output = query.new_zeros(batch, new, heads, value.shape[-1])
        for sequence in self._sequences(mask, new, call.position_ids):
            rows = range(batch) if sequence.rows is None else sequence.rows.tolist()
            if here.kind == "full":
                refuse_beyond(self.limits(batch), rows, sequence.length)
            for plan, spec, these in self._plans(here, layer, rows, batch, window_of(mask)):
                index = slice(None) if len(these) == batch else torch.tensor(these, device=query.device)
                inputs = Inputs(
                    query[index][:, :, sequence.queries],
                    key[index][:, :, sequence.keys],
                    value[index][:, :, sequence.keys],
                    call.scaling,
                    sequence.positions,
                    call.softcap,
                    call.sinks,
                )
                backend = choose(self.backend, plan, device=query.device, dtype=query.dtype, grad=inputs.needs_grad)
                result, _ = backend.attend(inputs, plan, spec, layer)
                if len(these) == batch and result.shape[2] == new:
                    return result.transpose(1, 2)
                output[index, sequence.queries] = result.transpose(1, 2)
        return output

    def _sequences(self, mask: Tensor, new: int, position_ids: Tensor | None) -> list[Sequence]:
        """All layers of a kind share one mask in a forward, so that it is cut once; a model has two kinds at most."""
        for known, queries, cut in self._cuts:
            if known is mask and queries == new:
                return cut
        cut = sequences(mask, new, position_ids)
        self._cuts = [*self._cuts[-1:], (mask, new, cut)]
        return cut

    def _plans(
        self, here: Layer, layer: int, rows: "range | list[int]", batch: int, window: int | None
    ) -> list[tuple[Plan, RotarySpec, list[int]]]:
        """The rows grouped by plan."""
        if here.kind != "full":
            region = Region(0, window)
            return [(Plan((Band(region),), here.spec.table), here.spec, list(rows))]
        groups: dict[Plan, list[int]] = {}
        plans = self.rows(batch)
        for row in rows:
            groups.setdefault(plans[row], []).append(row)
        return [(plan, here.spec, these) for plan, these in groups.items()]


def table_rotary(columns: RotaryColumns, rows: Rows) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A rotary forward that returns each row's own table: (x, position_ids [B or 1, T]) -> cos, sin [B or 1, T, width].

    Angles are built in float64; the result has x's dtype, like the stock module's.
    """
    pairs = torch.tensor(columns.pairs)

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        plans = rows(x.shape[0])
        where = torch.device("cpu") if x.device.type == "mps" else x.device  # MPS has no float64
        if len(set(plans)) == 1:
            plans = plans[:1]
        theta = torch.stack([plan.table.theta() for plan in plans])[:, None, :].to(where)  # [rows, 1, pairs]
        scaling = torch.tensor([plan.table.attention_scaling for plan in plans], device=where)[:, None, None]
        angles = (position_ids[:, :, None].to(where, torch.float64) * theta)[:, :, pairs.to(where)]
        cos, sin = (angles.cos() * scaling).to(x), (angles.sin() * scaling).to(x)
        return cos, sin

    return forward
