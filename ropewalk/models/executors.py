"""What an extension puts behind the seam: banded attention, or a table in the rotary module."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.attention.base import Inputs, choose
from ropewalk.attention.rotated import RotatedKeys, unsupported
from ropewalk.errors import BackendError, ModelError
from ropewalk.models.admission import Limits, Rows, refuse_beyond
from ropewalk.models.cache import GRADIENTS, layer_of, prepare
from ropewalk.models.census import Census, Layer, RotaryColumns
from ropewalk.models.mask import Sequence, sees_ahead, sequences, window_of
from ropewalk.models.seam import Call
from ropewalk.plan import Band, Plan, Region
from ropewalk.rotary import FrequencyTable, RotarySpec

Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Group = tuple[Sequence, Plan, RotarySpec, list[int]]  # rows that are attended to in one call


class Banded:
    """Executor: attention under each row's plan on the extended layers, plain attention on the others.

    Args:
        census: the layers.
        rows: the plan of every row.
        backend: name of the backend, or "auto".
        limits: the tokens that every row may reach.

    Attributes:
        left_plain: why caches that came by hold un-rotated keys.
    """

    def __init__(self, census: Census, rows: Rows, backend: str, limits: Limits) -> None:
        self.census = census
        self.rows = rows
        self.limits = limits
        self.backend = backend
        self.left_plain: dict[str, None] = {}
        self._cuts: list[tuple[Tensor, int, list[Sequence]]] = []
        self._latest: weakref.ref[RotatedKeys] | None = None

    def prepare(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the model: let the caches that it was given hold rotated keys."""
        if not torch.compiler.is_compiling():
            for given in (*args, *kwargs.values()):
                self.left_plain |= prepare(given)

    def __call__(
        self, layer: int, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, call: Call
    ) -> Tensor:
        if call.dropout:
            raise BackendError(
                f"attention dropout {call.dropout} is not supported under a position method; set attention_dropout to 0"
            )
        here = self.census.layers[layer]
        batch, heads, new, _ = query.shape
        groups: list[Group] = []
        for sequence in self._sequences(mask, new, call.position_ids):
            rows = range(batch) if sequence.rows is None else sequence.rows.tolist()
            if here.kind == "full":
                refuse_beyond(self.limits(batch), rows, sequence.length)
            plans = self._plans(here, layer, rows, batch, window_of(mask))
            groups += [(sequence, plan, spec, these) for plan, spec, these in plans]
        key, rotated = self._cached(layer, key, value, new, groups)
        output: Tensor | None = None
        for sequence, plan, spec, these in groups:
            index = slice(None) if len(these) == batch else torch.tensor(these, device=query.device)
            inputs = Inputs(
                query[index][:, :, sequence.queries],
                key[index][:, :, sequence.keys],
                value[index][:, :, sequence.keys],
                call.scaling,
                sequence.positions,
                call.softcap,
                call.sinks,
                None if rotated is None else rotated.part(index, sequence.keys),
            )
            backend = choose(self.backend, plan, device=query.device, dtype=query.dtype, grad=inputs.needs_grad)
            result, _ = backend.attend(inputs, plan, spec, layer)
            if len(these) == batch and result.shape[2] == new:
                return result.transpose(1, 2)
            if output is None:
                output = query.new_zeros(batch, new, heads, value.shape[-1])
            output[index, sequence.queries] = result.transpose(1, 2)
        return query.new_zeros(batch, new, heads, value.shape[-1]) if output is None else output

    def _cached(
        self, layer: int, key: Tensor, value: Tensor, new: int, groups: list[Group]
    ) -> tuple[Tensor, RotatedKeys | None]:
        """The keys rotated, where their cache can hold them so; else the un-rotated keys."""
        held = layer_of(key)
        if held is None or not groups:
            return key, None
        rotated = None
        reason = GRADIENTS if key.requires_grad or value.requires_grad else self._reason(key, groups)
        if reason is None:
            _, plan, spec, _ = groups[0]
            origins = [-1] * len(key)
            for sequence, _, _, rows in groups:
                for row in rows:
                    origins[row] = sequence.keys.start
            tables = choose(self.backend, plan, device=key.device, dtype=key.dtype).tables
            assert tables is not None
            rotated = held.rotate(new, plan, spec=spec, layer=layer, origins=origins, tables=tables)
            self._trim_before(rotated)
            reason = held.left_plain
        elif held.rotated is not None:
            held.release(reason)
        if reason is not None:
            self.left_plain[reason] = None
        if held.rotated is None and held.left_plain is not None:
            truth = held.keys
            assert truth is not None
            key = truth
        return key, rotated

    def _trim_before(self, rotated: RotatedKeys | None) -> None:
        """Trim the layer before this one: a family may attend to one layer's keys twice in a row (diffllama)."""
        latest = None if self._latest is None else self._latest()
        if latest is not None and latest is not rotated:
            latest.trim()
        self._latest = None if rotated is None else weakref.ref(rotated)

    def _reason(self, key: Tensor, groups: list[Group]) -> str | None:
        """Why keys under these plans are not held rotated, or None when they can be."""
        first = groups[0][1]
        if any(plan is not first and plan != first for _, plan, _, _ in groups):
            return "rows of a batch have plans of their own"
        if sum(len(rows) for *_, rows in groups) > len(key) or any(cut.positions is not None for cut, *_ in groups):
            return "several documents or positions with gaps in one row"
        plan = groups[0][1]
        backend = choose(self.backend, plan, device=key.device, dtype=key.dtype)
        if backend.tables is None:
            return f"backend {backend.name} takes un-rotated keys"
        return unsupported(plan)

    def _sequences(self, mask: Tensor, new: int, position_ids: Tensor | None) -> list[Sequence]:
        """All layers of a kind share one mask in a forward, so that it is cut once; a model has two kinds at most."""
        for known, queries, cut in self._cuts:
            if known is mask and queries == new:
                return cut
        if new == mask.shape[-1] and sees_ahead(mask) != self.census.spec.bidirectional:
            now, then = ("see later ones", "did not") if sees_ahead(mask) else ("do not see later ones", "did")
            raise ModelError(f"tokens {now} and {then} when the model was extended; remove() and extend it again")
        cut = sequences(mask, new, position_ids)
        self._cuts = [*self._cuts[-1:], (mask, new, cut)]
        return cut

    def _plans(
        self, here: Layer, layer: int, rows: "range | list[int]", batch: int, window: int | None
    ) -> list[tuple[Plan, RotarySpec, list[int]]]:
        """The rows grouped by plan."""
        if here.kind != "full":
            region = Region(0, window, side="both" if here.spec.bidirectional else "past")
            return [(Plan((Band(region),), here.spec.table), here.spec, list(rows))]
        groups: dict[Plan, list[int]] = {}
        plans = self.rows(batch)
        first = plans[rows[0]]
        if all(plans[row] is first for row in rows):  # to hash a plan costs as much as a step of decoding in a layer
            return [(first, here.spec, list(rows))]
        for row in rows:
            groups.setdefault(plans[row], []).append(row)
        return [(plan, here.spec, these) for plan, these in groups.items()]


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
