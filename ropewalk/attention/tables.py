"""cos and sin of a position map, built in float64 and kept while they fit."""

from collections import OrderedDict

import torch
from torch import Tensor

from ropewalk.plan import Plan, PositionMap
from ropewalk.rotary import FrequencyTable, RotarySpec, rotate, rotation

KEPT = 64  # tables; a model needs one per distinct map and frequency table, two or three for most methods
LARGEST = 2**26  # numbers; larger tables (one per head) are built anew for every layer


class Tables:
    """Tables for the positions 0 ... N - 1 of maps that are the same for all layers and heads, grown by doubling.

    Args:
        dtype: what cos and sin are rounded to.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._kept: OrderedDict[tuple[object, ...], tuple[Tensor, Tensor]] = OrderedDict()
        self._met: dict[tuple[int, int], tuple[PositionMap, FrequencyTable, tuple[Tensor, Tensor]]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> "Tables":
        return self  # the copy of a cache that refers to them asks for the same numbers

    def __reduce__(self) -> tuple[type["Tables"], tuple[torch.dtype]]:
        return type(self), (self.dtype,)  # a saved cache builds them anew

    def get(
        self, to: PositionMap, plan: Plan, layer: int, positions: Tensor | range, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """cos and sin [heads or 1, N, pairs] on `device`, of the mapped positions times theta.

        Args:
            to: the position map.
            plan: gives theta and the attention scaling of `layer`.
            positions: int64 [N], or a range of consecutive positions (then the table is kept).
        """
        if not isinstance(positions, range):
            return self._build(to, plan, layer, positions, device)
        cos, sin, first = self.around(to, plan, layer, positions, device)
        rows = slice(first, first + len(positions))
        return cos[:, rows], sin[:, rows]

    def around(
        self, to: PositionMap, plan: Plan, layer: int, positions: range, device: torch.device
    ) -> tuple[Tensor, Tensor, int]:
        """The tables that hold consecutive positions, whole, and the row of the first of these; `get` slices them."""
        met = self._met.get((id(to), id(plan.table)))  # to hash equal plans takes longer than a step of decoding
        if met is None or met[0] is not to or met[1] is not plan.table or not _serves(met[2], positions.stop, device):
            if not self._keeps(to, plan, positions.stop):
                exact = torch.arange(positions.start, positions.stop)
                return *self._build(to, plan, layer, exact, device), 0
            met = (to, plan.table, self._keep(to, plan, layer, positions.stop, device))
            self._met[id(to), id(plan.table)] = met
        return *met[2], positions.start

    def of_rows(self, to: PositionMap, plan: Plan, layer: int, positions: Tensor, stop: int) -> tuple[Tensor, Tensor]:
        """The same for positions of their own in every row, int64 [B, N], below `stop`: [B, heads or 1, N, pairs]."""
        if self._keeps(to, plan, stop):
            cos, sin = self.get(to, plan, layer, range(stop), positions.device)
            return cos[:, positions].transpose(0, 1), sin[:, positions].transpose(0, 1)
        cos, sin = self._build(to, plan, layer, positions.flatten(), positions.device)
        return cos.unflatten(1, positions.shape).transpose(0, 1), sin.unflatten(1, positions.shape).transpose(0, 1)

    def turn(
        self, x: Tensor, to: PositionMap, plan: Plan, layer: int, positions: Tensor | range, spec: RotarySpec
    ) -> Tensor:
        """Rotate x [B, H, T, D] by the positions [T] under a map."""
        cos, sin = self.get(to, plan, layer, positions, x.device)
        return rotate(x, cos, sin, spec)

    @staticmethod
    def _keeps(to: PositionMap, plan: Plan, stop: int) -> bool:
        """Whether one table serves all layers and heads, and is small enough to be kept: then all that serve are."""
        shared = not (to.per_head or to.per_layer or plan.table.per_layer)
        return shared and _capacity(stop) * plan.table.pairs <= LARGEST

    def _keep(self, to: PositionMap, plan: Plan, layer: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The kept table of a map, or a new one of at least `stop` positions."""
        key = (to, plan.table, device)
        kept = self._kept.get(key)
        if kept is None or not _serves(kept, stop, device):
            kept = self._kept[key] = self._build(to, plan, layer, torch.arange(_capacity(stop)), device)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        if len(self._met) >= KEPT:  # they hold on to tables that are no longer kept
            self._met.clear()
        return kept

    def _build(
        self, to: PositionMap, plan: Plan, layer: int, positions: Tensor, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        with torch.inference_mode(False), torch.no_grad():  # a table made while generating may serve a training step
            theta = plan.table.theta(layer).to(where)
            cos, sin = rotation(to(positions.to(where, copy=True), layer), theta, plan.table.attention_scaling)
            return cos.to(device, self.dtype), sin.to(device, self.dtype)


def _capacity(stop: int) -> int:
    """Positions in a kept table that serves those below `stop`."""
    return 1 << (stop - 1).bit_length()


def _serves(table: tuple[Tensor, Tensor], stop: int, device: torch.device) -> bool:
    return table[0].shape[1] >= stop and table[0].device == device
