"""A method on a model in training: its tables for the rows of a batch, and as inference would have it at a length."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import MethodError, TrainingError
from ropewalk.methods import CLEX, LongRoPE, Method, PositionInterpolation
from ropewalk.models.describe import OWN
from ropewalk.models.huggingface import Extension, extend
from ropewalk.rotary import RotarySpec
from ropewalk.train.learned import Learned
from ropewalk.train.mixed import MixedTables
from ropewalk.train.packs import Mixed
from ropewalk.train.positions import Sampler
from ropewalk.train.rows import RowTables
from ropewalk.train.samplers import E2LLM
from ropewalk.train.settings import Settings


@dataclass
class Attached:
    """A method on a model that is trained.

    Attributes:
        model: in training.
        method: as it is trained.
        sampler: of positions.
        target_length: tokens.
        pretrained_length: as it was given.
        held: what rotates its rows.
    """

    model: PreTrainedModel
    method: Method
    sampler: Sampler
    target_length: int
    pretrained_length: int | None
    held: RowTables | Extension

    @property
    def spec(self) -> RotarySpec:
        """The model's rotary embedding."""
        return self.held.spec

    @property
    def network(self) -> torch.nn.Module | None:
        """What is trained besides the model."""
        return self.held.network if isinstance(self.held, Learned) else None

    def prepare(self, time: Tensor, positions: Tensor, step: int) -> None:
        """Before a forward: which row has which table.

        Raises:
            TrainingError: positions that the method cannot take.
        """
        if isinstance(self.held, RowTables):
            self.held.time, self.held.step = time, step
        elif self.held.backend != OWN and positions.is_floating_point():
            raise TrainingError(
                f"{self.method.name} counts whole positions, and the sampler draws fractions; take a table method"
            )

    def trained(self, length: int) -> Method:
        """The method that reads texts of up to `length` tokens with the weights of this moment."""
        if isinstance(self.held, Learned):
            return self.held.network.method()
        if isinstance(self.sampler, E2LLM):
            return PositionInterpolation(factor=float(max(1, math.ceil(length / self.sampler.pretrained_length))))
        return self.held.method if isinstance(self.held, MixedTables) else self.method

    @contextlib.contextmanager
    def at(self, length: int) -> Iterator[None]:
        """The model as inference has it for one text of `length` tokens."""
        if isinstance(self.held, Extension) and not isinstance(self.sampler, E2LLM):
            with pinned(self.held, length):
                yield
            return
        with self.held.lifted(), self.extended(length):
            yield

    def extended(self, length: int) -> Extension:
        """The method attached for inference, when training is over or lifted."""
        return extend(
            self.model,
            self.trained(length),
            target_length=length,
            pretrained_length=self.pretrained_length,
            verify=False,
        )


@contextlib.contextmanager
def attach(
    model: PreTrainedModel, method: Method, sampler: Sampler, settings: Settings, pretrained_length: int | None
) -> Iterator[Attached]:
    """Attach a method for training, for as long as the context lasts.

    Raises:
        MethodError, ModelError: as `ropewalk.extend`.
    """
    held: RowTables | Extension
    if isinstance(method, CLEX):
        held = Learned(
            model,
            method,
            pretrained_length=pretrained_length,
            amplification=settings.amplification,
            generator=torch.Generator().manual_seed(settings.seed),
        )
        require_table_method(held.network.settings, held.spec, settings.target_length)
    elif isinstance(sampler, Mixed):
        if not isinstance(method, LongRoPE):
            raise TrainingError(f"mixed windows train longrope, which switches between two tables; got {method.name}")
        held = MixedTables(model, method, settings.target_length, pretrained_length=pretrained_length)
        require_table_method(held.method, held.spec, settings.target_length)
    else:
        held = extend(model, method, target_length=settings.target_length, pretrained_length=pretrained_length)
    with held:
        yield Attached(model, method, sampler, settings.target_length, pretrained_length, held)


def require_table_method(method: Method, spec: RotarySpec, target_length: int) -> None:
    """Raise MethodError unless the tables of rows are all that a filled method does, as far as the target."""
    method.check_target(spec, target_length)
    if method.plan(spec, target_length).takes_attention:
        raise MethodError(
            f"{method.name}: log_n, logit_scale and retain are for inference; train without them, and give them to the "
            "result"
        )


@contextlib.contextmanager
def pinned(extension: Extension, length: int) -> Iterator[None]:
    """Rows of `length` tokens for as long as the context lasts, where the method depends on the length."""
    if extension.method.length_dependent:
        extension.pin([length])
    try:
        yield
    finally:
        if extension.method.length_dependent:
            extension.pin(None)
