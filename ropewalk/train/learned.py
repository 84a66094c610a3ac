"""The network of CLEX inside a model: every row of a batch is rotated by the table of its own length factor."""

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import ModelError, TrainingError
from ropewalk.methods import CLEX
from ropewalk.models.executors import turned
from ropewalk.models.huggingface import MARK, read_model
from ropewalk.models.override import Override
from ropewalk.models.seam import name_of
from ropewalk.train.network import Network

MODULE = "clex"  # of the rotary module, so that optimizers, checkpoints and data-parallel wrappers find the weights
ASCENT = 1e-9  # a pair may be this much faster than the one before it: rounding


class Learned:
    """A network of CLEX put into a model's rotary module, as a context manager; leaving it takes it out again.

    The weights are a submodule of the rotary module for as long as it lasts. Before every forward, `time` has to say
    which length factor each row has.

    Attributes:
        network: what is trained.
        spec: the model's rotary embedding.
        time: t of every row of the next forward, [B].
        step: number of the training step, for messages.

    Raises:
        ModelError: a model that cannot be extended, that is extended already, or whose layers with a window share the
            rotary module.
    """

    def __init__(
        self, model: PreTrainedModel, method: CLEX, *, pretrained_length: int | None = None, **network: Any
    ) -> None:
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
                f"{name_of(model)} cannot train clex: its layers with a window share the rotary module with the full "
                "ones; take another method"
            )
        path, self._layer_type = census.rotary
        self._rotary = seam.rotaries[path]
        columns = census.columns[census.rotary]
        self._pairs = torch.tensor(columns.pairs)
        self.spec = census.spec
        self.network = Network(method, self.spec, **network).to(model.device)
        self.time: Tensor | None = None
        self.step = 0
        self._override: Override | None = None

    def __enter__(self) -> "Learned":
        self._rotary.add_module(MODULE, self.network)
        self._override = Override(self._rotary, "forward", self._forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._override is not None
        self._override.restore()
        del self._rotary._modules[MODULE]

    def _forward(
        self, x: Tensor, position_ids: Tensor, asked: str | None = None, **named: Any
    ) -> tuple[Tensor, Tensor]:
        asked = named.get("layer_type", asked)
        if asked != self._layer_type:
            assert self._override is not None
            rotated: tuple[Tensor, Tensor] = self._override.original(x, position_ids, asked)
            return rotated
        if self.time is None or len(self.time) != x.shape[0]:
            raise TrainingError(
                f"a batch of {x.shape[0]} rows came without their length factors; set `time` before the forward"
            )
        theta = self.network(self.time)
        require_table(theta, self.time, self.step)
        scaling = torch.full((1,), self.spec.attention_scaling, dtype=theta.dtype, device=theta.device)
        return turned(x, position_ids, theta, scaling, self._pairs)


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
