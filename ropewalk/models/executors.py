"""What an extension puts behind the seam: banded attention, or a table in the rotary module."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.attention.base import Backend, Inputs, choose
from ropewalk.attention.rotated import RotatedKeys, unsupported
from ropewalk.attention.tables import Tables
from ropewalk.errors import BackendError, ModelError
from ropewalk.models import late_norms
from ropewalk.models.admission import Limits, Rows, refuse_beyond
from ropewalk.models.cache import prepare
from ropewalk.models.census import Census, Layer
from ropewalk.models.held import GRADIENTS, layer_of
from ropewalk.models.mask import Sequence, sees_ahead, sequences, window_of
from ropewalk.models.seam import NO_DROPOUT, Call
from ropewalk.models.sliding_cache import RotatedSlidingLayer, Slid, Turning
from ropewalk.plan import Band, Plan, Region
from ropewalk.rotary import RotarySpec

UNROTATED = "a paged cache (continuous batching)"
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
        self._tables = Tables()
        self._cuts: list[tuple[Tensor, int, tuple[list[Sequence], int | None]]] = []
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
            raise BackendError(NO_DROPOUT.format(call.dropout))
        here = self.census.layers[layer]
        batch, heads, new, _ = query.shape
        groups: list[Group] = []
        cut, window = self._sequences(mask, new, call.position_ids)
        for sequence in cut:
            rows = range(batch) if sequence.rows is None else sequence.rows.tolist()
            if here.kind == "full":
                refuse_beyond(self.limits(batch), rows, sequence.length)
            plans = self._plans(here, layer, rows, batch, window)
            groups += [(sequence, plan, spec, these) for plan, spec, these in plans]
        key, rotated = self._cached(layer, key, value, new, groups)
        if rotated is None and query.dtype != value.dtype:  # autocast, whose own attention computes in the lower one
            query, key = query.to(value.dtype), key.to(value.dtype)
        together = rows_together(groups, batch)
        if together is not None and here.norms is None and not isinstance(rotated, Slid):
            sequence, plan, spec, _ = groups[0]
            slots = slice(0, sequence.keys.stop + new - sequence.queries.stop)
            held = None if rotated is None else rotated.part(slice(None), slots)
            given = (call.scaling, None, call.softcap, call.sinks, held, together)
            inputs = Inputs(query, key[:, :, slots], value[:, :, slots], *given)
            backend = self._choose(plan, inputs)
            if backend.ragged:
                return backend.attend(inputs, plan, spec, layer)[0].transpose(1, 2)
        output: Tensor | None = None
        for sequence, plan, spec, these in groups:
            index = _index(these, query.device)
            inputs = Inputs(
                query[index][:, :, sequence.queries],
                key[index][:, :, sequence.keys],
                value[index][:, :, sequence.keys],
                call.scaling,
                rotated.positions(sequence.keys) if isinstance(rotated, Slid) else sequence.positions,
                call.softcap,
                call.sinks,
                None if rotated is None else rotated.part(index, sequence.keys),
            )
            result = self._attend(here, inputs, plan, spec, layer)
            if len(these) == batch and result.shape[2] == new:
                return result.transpose(1, 2)
            if output is None:
                output = query.new_zeros(batch, new, heads, value.shape[-1])
            output[index, sequence.queries] = result.transpose(1, 2)
        return query.new_zeros(batch, new, heads, value.shape[-1]) if output is None else output

    def _choose(self, plan: Plan, inputs: Inputs) -> Backend:
        device, dtype = inputs.query.device, inputs.query.dtype
        return choose(self.backend, plan, device=device, dtype=dtype, grad=inputs.needs_grad, inputs=inputs)

    def _attend(self, here: Layer, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> Tensor:
        """Output [B, H, T, V]."""
        if here.norms is not None:
            return late_norms.attend(inputs, plan, spec, layer, here.norms, self._tables)
        return self._choose(plan, inputs).attend(inputs, plan, spec, layer)[0]

    def alone(self, layer: int, query: Tensor, key: Tensor, value: Tensor, call: Call) -> Tensor:
        """Attention of one text without padding or a cache of ours, [1, T, H, V]: the last T of S tokens are queried.

        Where the layer has a window, the first key need not be the first token of the text.
        """
        here = self.census.layers[layer]
        self.left_plain[UNROTATED] = None
        if here.kind == "full":
            refuse_beyond(self.limits(1), [0], key.shape[2])
        ((plan, spec, _),) = self._plans(here, layer, range(1), 1, here.window)
        inputs = Inputs(query, key, value, call.scaling, softcap=call.softcap, sinks=call.sinks)
        return self._attend(here, inputs, plan, spec, layer).transpose(1, 2)

    def _cached(
        self, layer: int, key: Tensor, value: Tensor, new: int, groups: list[Group]
    ) -> tuple[Tensor, RotatedKeys | Slid | None]:
        """The keys rotated, where their cache can hold them so; else the un-rotated keys."""
        held = layer_of(key)
        if held is None or not groups:
            return key, None
        if isinstance(held, RotatedSlidingLayer):
            return self._slid(held, layer, key, value, groups)
        rotated = None
        reason = GRADIENTS if key.requires_grad or value.requires_grad else self._reason(key, groups)
        if self.census.layers[layer].norms is not None:
            reason = late_norms.REASON
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

    def _slid(
        self, held: RotatedSlidingLayer, layer: int, key: Tensor, value: Tensor, groups: list[Group]
    ) -> tuple[Tensor, Slid | None]:
        """The same for a layer of a sliding-window cache."""
        here = self.census.layers[layer]
        reason = GRADIENTS if key.requires_grad or value.requires_grad else self._reason(key, groups)
        if here.norms is not None:
            reason = late_norms.REASON
        elif here.kind == "full":
            reason = "a window longer than the target, in a sliding-window cache"
        elif here.kind == "none":
            reason = "layers that do not rotate"
        elif key.device.type != "cpu":
            reason = f"kernels on {key.device.type} take no window that stands somewhere in a text"
        if reason is None:
            _, plan, spec, _ = groups[0]
            tables = choose(self.backend, plan, device=key.device, dtype=key.dtype).tables
            assert tables is not None
            return key, held.slid(key, Turning(plan, spec, tables))
        if here.kind != "none":
            self.left_plain[reason] = None
        key = held.unturned(key)
        held.release(reason)
        return key, None

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

    def _sequences(self, mask: Tensor, new: int, position_ids: Tensor | None) -> tuple[list[Sequence], int | None]:
        """The sequences of a mask and its window, read once for all layers of a kind; a model has two kinds at most."""
        for known, queries, cut in self._cuts:
            if known is mask and queries == new:
                return cut
        if new == mask.shape[-1] and sees_ahead(mask) != self.census.spec.bidirectional:
            now, then = ("see later ones", "did not") if sees_ahead(mask) else ("do not see later ones", "did")
            raise ModelError(f"tokens {now} and {then} when the model was extended; remove() and extend it again")
        cut = sequences(mask, new, position_ids), window_of(mask)
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


def _index(rows: list[int], device: torch.device) -> "slice | Tensor":
    """Rows of a batch as an index; of neighbours a slice, which copies nothing of a long cache."""
    if rows == list(range(rows[0], rows[-1] + 1)):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)


def rows_together(groups: list[Group], batch: int) -> tuple[tuple[int, int], ...] | None:
    """The slots of every row, for a backend that takes rows with padding in one call; None where one call will not do.

    Rows need one plan, no gaps between positions and one document each; where all are alike nothing is gained.
    """
    plans = [plan for _, plan, _, _ in groups]
    if len(groups) < 2 or any(plan is not plans[0] and plan != plans[0] for plan in plans):
        return None
    if any(sequence.positions is not None for sequence, *_ in groups):
        return None
    found: dict[int, tuple[int, int]] = {}
    for sequence, _, _, rows in groups:
        if not found.keys().isdisjoint(rows):
            return None
        found |= dict.fromkeys(rows, (sequence.keys.start, sequence.keys.stop))
    return tuple(found.get(row, (0, 0)) for row in range(batch))
