"""What every attention backend shares: its inputs, its promise, and the choice among backends."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ropewalk.attention.tables import Tables
from ropewalk.errors import BackendError
from ropewalk.plan import Plan, PositionMap
from ropewalk.registry import Registry
from ropewalk.rotary import RotarySpec


@dataclass(frozen=True)
class Inputs:
    """Attention of the last T of S tokens of one or more sequences, before any rotation of the query.

    Attributes:
        query: [B, H, T, D], un-rotated.
        key: [B, K, S, D], un-rotated; H is a multiple of K. NaN where `rotated` is given: only the shape counts then.
        value: [B, K, S, V].
        scaling: multiplies the logits (usually D^-1/2); the plan's own logit scale comes on top.
        positions: token positions of the keys, int64 [S], ascending; None for 0 ... S - 1. Queries are the last T.
        softcap: logits become softcap * tanh(logits / softcap), or None.
        sinks: one extra logit per head that takes weight and gives nothing, [H], or None.
        rotated: the last keys, as many as the bands ask for, rotated by each key map of the plan, [B, K, n <= S, D]; or
            None. For backends that have `tables`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    positions: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    rotated: Mapping[PositionMap, Tensor] | None = None

    @property
    def needs_grad(self) -> bool:
        """True when autograd will ask for gradients of any input."""
        tensors = (self.query, self.key, self.value)
        return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    def key_positions(self) -> Tensor:
        """Positions of the keys, int64 [S]."""
        if self.positions is not None:
            return self.positions
        return torch.arange(self.key.shape[2], device=self.key.device)


class Backend(ABC):
    """One way to carry a plan out. Backends equal the reference and never import one another.

    Attributes:
        tables: cos and sin, of a backend that also takes keys that are rotated already; None: un-rotated keys only.
    """

    name: str
    tables: Tables | None = None

    @abstractmethod
    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        """Why this backend cannot run such a plan, or None when it can."""

    @abstractmethod
    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        """Attention under the plan.

        Returns:
            output [B, H, T, V] in the dtype of the query, and the natural logsumexp of the logits without sinks,
            [B, H, T], -inf for a query that sees no key (whose output is 0).
        """


BACKENDS: Registry[Backend] = Registry("backend", BackendError)
ORDER = ("compiled", "blockwise", "reference")  # what "auto" tries, first to last


def choose(name: str, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool = False) -> Backend:
    """The named backend, or for "auto" the first of `ORDER` that can run the plan.

    Raises:
        BackendError: unknown name; a named backend that cannot run, with its reason; none that can.
    """
    if name != "auto":
        backend = BACKENDS.get(name)
        reason = backend.unsupported(plan, device=device, dtype=dtype, grad=grad)
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot run this: {reason}; take backend='auto' or another one")
        return backend
    reasons = {}
    for candidate in ORDER:
        reason = BACKENDS.get(candidate).unsupported(plan, device=device, dtype=dtype, grad=grad)
        if reason is None:
            return BACKENDS.get(candidate)
        reasons[candidate] = reason
    raise BackendError("no backend can run this: " + "; ".join(f"{k}: {v}" for k, v in reasons.items()))
