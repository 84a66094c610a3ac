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

Rows = tuple[tuple[int, int], ...]  # for each row of a batch, slots [first, last)


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
        rows: slots [first, last) of each row that hold its tokens, whose positions count from `first`; the others are
            padding, whose queries get output 0 and logsumexp -inf. None: no padding. For backends that are `ragged`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    positions: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    rotated: Mapping[PositionMap, Tensor] | None = None
    rows: Rows | None = None

    @property
    def needs_grad(self) -> bool:
        """True when autograd will ask for gradients of any input."""
        tensors = (self.query, self.key, self.value, self.sinks)
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)

    def key_positions(self) -> Tensor:
        """Positions of the keys, int64 [S]."""
        if self.positions is not None:
            return self.positions
        return torch.arange(self.key.shape[2], device=self.key.device)


class Backend(ABC):
    """One way to carry a plan out. Backends equal the reference and never import one another.

    Attributes:
        tables: cos and sin, of a backend that also takes keys that are rotated already; None: un-rotated keys only.
        ragged: it takes rows with padding in one call.
    """

    name: str
    tables: Tables | None = None
    ragged: bool = False

    @abstractmethod
    def unsupported(self, plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool) -> str | None:
        """Why this backend cannot run such a plan, or None when it can."""

    def refuses(self, inputs: Inputs) -> str | None:
        """Why it cannot run these inputs under a plan that it can run, or None when it can."""
        return None

    @abstractmethod
    def attend(self, inputs: Inputs, plan: Plan, spec: RotarySpec, layer: int) -> tuple[Tensor, Tensor]:
        """Attention under the plan.

        Returns:
            output [B, H, T, V] in the dtype of the query, and the natural logsumexp of the logits without sinks,
            [B, H, T], -inf for a query that sees no key (whose output is 0).
        """


BACKENDS: Registry[Backend] = Registry("backend", BackendError)
# What "auto" tries, first to last. On CUDA: torch's own FlashAttention, that of the package, then compiled masks, which
# do what neither can; plain torch comes last.
ORDER = ("compiled", "triton", "varlen", "flash", "flex", "blockwise", "reference")


def choose(
    name: str,
    plan: Plan,
    *,
    device: torch.device,
    dtype: torch.dtype,
    grad: bool = False,
    inputs: Inputs | None = None,
) -> Backend:
    """The named backend, or for "auto" the first of `ORDER` that can run the plan, and these inputs where given.

    Raises:
        BackendError: unknown name; a named backend that cannot run, with its reason; none that can.
    """
    if name != "auto":
        reason = _reason(name, plan, device, dtype, grad, inputs)
        if reason is not None:
            raise BackendError(f"backend {name!r} cannot run this: {reason}; take backend='auto' or another one")
        return BACKENDS.get(name)
    reasons: dict[str, str] = {}
    for candidate in ORDER:
        reason = _reason(candidate, plan, device, dtype, grad, inputs)
        if reason is None:
            return BACKENDS.get(candidate)
        reasons[candidate] = reason
    raise BackendError("no backend can run this: " + "; ".join(f"{k}: {v}" for k, v in reasons.items()))


def passed_over(plan: Plan, *, device: torch.device, dtype: torch.dtype, grad: bool = False) -> dict[str, list[str]]:
    """Why "auto" passes over what stands before its choice in `ORDER`: each reason, with the backends that have it."""
    found: dict[str, list[str]] = {}
    for candidate in ORDER:
        reason = _reason(candidate, plan, device, dtype, grad, None)
        if reason is None:
            break
        found.setdefault(reason, []).append(candidate)
    return found


def _reason(
    name: str, plan: Plan, device: torch.device, dtype: torch.dtype, grad: bool, inputs: Inputs | None
) -> str | None:
    backend = BACKENDS.get(name)
    reason = backend.unsupported(plan, device=device, dtype=dtype, grad=grad)
    return reason if reason is not None or inputs is None else backend.refuses(inputs)
