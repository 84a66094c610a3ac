"""The network of CLEX inside a model: every row of a batch is rotated by the table of its own length factor."""

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import TrainingError
from ropewalk.methods import CLEX
from ropewalk.train.network import Network
from ropewalk.train.rows import RowTables

MODULE = "clex"  # of the rotary module, so that optimizers, checkpoints and data-parallel wrappers find the weights
ASCENT = 1e-9  # a pair may be this much faster than the one before it: rounding


class Learned(RowTables):
    """A network of CLEX put into a model's rotary module, as a context manager; leaving it takes it out again.

    The weights are a submodule of the rotary module for as long as it lasts.

    Attributes:
        network: what is trained.
    """

    def __init__(
        self, model: PreTrainedModel, method: CLEX, *, pretrained_length: int | None = None, **network: Any
    ) -> None:
        super().__init__(model, pretrained_length=pretrained_length)
        self.network = Network(method, self.spec, **network).to(model.device)

    def __enter__(self) -> Self:
        self._rotary.add_module(MODULE, self.network)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        del self._rotary._modules[MODULE]

    def tables(self, time: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.network(time)
        require_table(theta, time, self.step)
        return theta, torch.full((1,), self.spec.attention_scaling, dtype=theta.dtype, device=theta.device)


def require_table(theta: Tensor, time: Tensor, step: int) -> None:
    """Raise TrainingError, with the step, the pair and t, unless every row's frequencies are finite and descend.

    Args:
        theta: [B, pairs].
        time: [B].
    """
    found = theta.detach().cpu()
    finite = found.isfinite()
    wrong = ~finite
    wrong[:, 1:] |= found[:, 1:] > found[:, :-1] * (1 + ASCENT)
    if not bool(wrong.any()):
        return
    row, pair = (int(one) for one in wrong.nonzero()[0])
    what = "faster than the pair before it" if bool(finite[row, pair]) else "not finite"
    raise TrainingError(
        f"step {step}: the frequency of pair {pair} at t = {float(time[row]):.3g} is {what}; lower the network's "
        "learning rate or its clip"
    )
