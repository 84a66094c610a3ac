"""What the backend of variable-length kernels asks of a library that has one."""

import inspect
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ropewalk.attention.calls import Call


class Caller(ABC):
    """A library's attention over sequences: queries [Q, G, D], keys and values [N, 1, D], G query heads on a key head.

    Attributes:
        device: type of device that it runs on.
        dtypes: that it computes in.
        softcaps: it can soft-cap logits.
    """

    device: ClassVar[str] = "cuda"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float16, torch.bfloat16)
    softcaps: ClassVar[bool] = False

    @abstractmethod
    def missing(self, *, grad: bool) -> str | None:
        """Why it cannot be called, or None when it can."""

    @abstractmethod
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, call: Call, scaling: float, softcap: float
    ) -> tuple[Tensor, Tensor]:
        """Output [Q, G, D] and natural logsumexp, float32 [G, Q]; rows that see no key may hold anything."""

    @abstractmethod
    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        call: Call,
        starts_k: Tensor,
        scaling: float,
        softcap: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v for an output and logsumexp that may be of more keys than these.

        Args:
            starts_k: where the keys of each sequence begin, and where the last ones end, int32 [N + 1].
        """


def absent(library: Any, name: str, wanted: tuple[str, ...]) -> str | None:
    """Which of these arguments a function of a library does not have, or that there is no such function."""
    function = getattr(library, name, None)
    if function is None:
        return f"there is no {name}"
    lacking = _lacking(function, wanted)
    return f"{name} has no {', '.join(lacking)}" if lacking else None


@lru_cache(maxsize=16)
def _lacking(function: Any, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Asked for in every layer of every step, where reading a signature takes as long as a small kernel."""
    known = inspect.signature(getattr(function, "_init_fn", function)).parameters  # of a torch custom op
    return tuple(argument for argument in wanted if argument not in known)
