"""One training run on transformers' Trainer: a method, a position sampler, documents; resumable to the same weights."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from ropewalk.errors import MethodError, TrainingError
from ropewalk.methods import CLEX, Method
from ropewalk.models.describe import OWN
from ropewalk.models.huggingface import Extension, extend
from ropewalk.train.collator import collate, require_mask
from ropewalk.train.data import Sequences
from ropewalk.train.learned import Learned
from ropewalk.train.positions import Sampler
from ropewalk.train.settings import Settings
from ropewalk.train.trainer import Clip, OrderedTrainer, arguments, begin, losses, require_accelerate

NETWORK = "clex.json"


@dataclass(frozen=True)
class Result:
    """What a run left.

    Attributes:
        folder: with the model (unless only the network was trained), the network and the settings.
        method: what the result is extended with, in its text form.
        losses: mean loss since the line before, by step.
    """

    folder: Path
    method: str
    losses: dict[int, float]


def train(
    model: PreTrainedModel,
    method: Method,
    sampler: Sampler,
    documents: Sequence[np.ndarray],
    settings: Settings,
    folder: str | Path,
    *,
    resume: bool = False,
    padding: int = 0,
    pretrained_length: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Train a model under a method, and write the result into a folder.

    Args:
        model: its weights are changed, unless only the network is trained.
        method: `clex`, or any method that `ropewalk.extend` attaches.
        sampler: of positions.
        documents: token ids.
        settings: of the run; they are written into the folder.
        folder: where checkpoints and the result go.
        resume: go on after the last checkpoint in the folder, to the weights of a run that was not interrupted.
        padding: id of padded places.

    Raises:
        TrainingError: settings, data or a checkpoint that do not fit; a loss or a table that is not finite (named with
            the last good checkpoint).
        MethodError, ModelError: as `ropewalk.extend`.
    """
    folder = Path(folder)
    require_accelerate()
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise TrainingError(
            "gradient checkpointing is on, and its reentrant kind cannot go through a trained table; switch it off and "
            "set checkpointing in the settings"
        )
    if settings.network_only and not isinstance(method, CLEX):
        raise TrainingError(f"{method.name} has no network to train alone; leave network_only off")
    given = arguments(settings, folder)
    count = settings.count * given.world_size
    data = Sequences(documents, sampler, length=settings.length, count=count, seed=settings.seed)
    checkpoint = begin(settings, folder, resume=resume)
    with contextlib.ExitStack() as stack:
        learned, extension = None, None
        if isinstance(method, CLEX):
            learned = stack.enter_context(_learned(model, method, settings, pretrained_length))
        else:
            extension = stack.enter_context(
                extend(model, method, target_length=settings.target_length, pretrained_length=pretrained_length)
            )
        asked = [one.requires_grad for one in model.parameters()]
        for name, one in model.named_parameters():
            one.requires_grad_(not settings.network_only or _of_network(name))
        trainer = _Trainer(
            model=model,
            args=given,
            train_dataset=data,
            data_collator=partial(collate, padding=padding),
            callbacks=[Clip(settings.clip), *callbacks],
            learned=learned,
            extension=extension,
            groups=_groups(model, settings),
        )
        model.train()
        if settings.checkpointing:
            _checkpointing(model, True)
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            if settings.checkpointing:
                _checkpointing(model, False)
            model.eval()
            for one, before in zip(model.parameters(), asked, strict=True):
                one.requires_grad_(before)
    text = str(method)
    if learned is not None:
        trained = learned.network.method()
        trained.to_profile(learned.spec, steps=settings.steps, length=settings.length).save(folder / NETWORK)
        text = f"clex:profile={folder / NETWORK}"
    if not settings.network_only:
        model.save_pretrained(folder)
    return Result(folder, text, losses(trainer))


def _learned(model: PreTrainedModel, method: CLEX, settings: Settings, pretrained_length: int | None) -> Learned:
    if method.log_n or method.logit_scale not in (None, 1.0):
        raise MethodError("clex: log_n and logit_scale are for inference; train without them")
    generator = torch.Generator().manual_seed(settings.seed)
    return Learned(
        model, method, pretrained_length=pretrained_length, amplification=settings.amplification, generator=generator
    )


def _of_network(name: str) -> bool:
    return name.rpartition(".")[0].endswith("clex")


def _groups(model: PreTrainedModel, settings: Settings) -> list[dict[str, Any]]:
    """The model's weights and the network's, each with its own rate; empty ones left out."""
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    own = [one for name, one in named if not _of_network(name)]
    network = [one for name, one in named if _of_network(name)]
    groups = [{"params": own, "lr": settings.rate}, {"params": network, "lr": settings.network_rate}]
    return [group for group in groups if group["params"]]


class _Trainer(OrderedTrainer):
    """Trainer that tells the table which rows it has."""

    def __init__(
        self,
        *,
        learned: Learned | None,
        extension: Extension | None,
        groups: list[dict[str, Any]],
        **named: Any,
    ) -> None:
        super().__init__(optimizers=(torch.optim.AdamW(groups, weight_decay=0.0), None), **named)
        self.learned = learned
        self.extension = extension

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        time: Tensor = inputs.pop("time")
        positions = inputs["position_ids"]
        require_mask(positions, inputs.get("attention_mask"))
        if self.learned is not None:
            self.learned.time, self.learned.step = time, self.state.global_step
        elif self.extension is not None and self.extension.backend != OWN and positions.is_floating_point():
            raise TrainingError(
                f"{self.extension.method.name} counts whole positions, and the sampler draws fractions; take a table "
                "method"
            )
        return super().compute_loss(model, inputs, *rest, **named)


def _checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Switch gradient checkpointing, under its newer name where there is one; never the reentrant kind.

    The reentrant kind runs backward through the table of CLEX once for every layer, which it cannot.
    """
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
