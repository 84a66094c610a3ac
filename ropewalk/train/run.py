"""One training run on transformers' Trainer: a method, a position sampler, documents; resumable to the same weights."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ropewalk.errors import MethodError, TrainingError
from ropewalk.methods import CLEX, Method
from ropewalk.models.describe import OWN
from ropewalk.models.huggingface import Extension, extend
from ropewalk.train.collator import collate, require_mask
from ropewalk.train.data import Sequences
from ropewalk.train.learned import Learned
from ropewalk.train.positions import Sampler
from ropewalk.train.settings import Settings

CHECKPOINTS, NETWORK = "checkpoints", "clex.json"


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
    _require_accelerate()
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise TrainingError(
            "gradient checkpointing is on, and its reentrant kind cannot go through a trained table; switch it off and "
            "set checkpointing in the settings"
        )
    if settings.network_only and not isinstance(method, CLEX):
        raise TrainingError(f"{method.name} has no network to train alone; leave network_only off")
    arguments = _arguments(settings, folder)
    count = settings.count * arguments.world_size
    data = Sequences(documents, sampler, length=settings.length, count=count, seed=settings.seed)
    if resume:
        settings.require_same(folder)
    elif (folder / CHECKPOINTS).exists():
        raise TrainingError(f"there is a run in {str(folder)!r} already; resume it, or give another folder")
    checkpoint = get_last_checkpoint(str(folder / CHECKPOINTS)) if (folder / CHECKPOINTS).is_dir() else None
    folder.mkdir(parents=True, exist_ok=True)
    settings.write(folder)
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
            args=arguments,
            train_dataset=data,
            data_collator=partial(collate, padding=padding),
            callbacks=[_Clip(settings.clip), *callbacks],
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
    losses = {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}
    text = str(method)
    if learned is not None:
        trained = learned.network.method()
        trained.to_profile(learned.spec, steps=settings.steps, length=settings.length).save(folder / NETWORK)
        text = f"clex:profile={folder / NETWORK}"
    if not settings.network_only:
        model.save_pretrained(folder)
    return Result(folder, text, losses)


def _require_accelerate() -> None:
    if find_spec("accelerate") is None:
        raise TrainingError("training needs accelerate, which is not installed; pip install 'ropewalk[train]'")


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


def _arguments(settings: Settings, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        max_grad_norm=0.0,  # by _Clip
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        save_total_limit=2,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
    )


class _Trainer(Trainer):
    """Trainer that tells the table which rows it has and stops at the first bad number."""

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
        found = super().compute_loss(model, inputs, *rest, **named)
        loss = found[0] if isinstance(found, tuple) else found
        if not math.isfinite(float(loss.detach())):
            last = get_last_checkpoint(self.args.output_dir) or "none was written"
            raise TrainingError(
                f"step {self.state.global_step}: the loss is {float(loss.detach())}; the last good checkpoint: {last}; "
                "lower the learning rate"
            )
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """In the order of the data set, which has one of its own for every epoch."""
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


class _Clip(TrainerCallback):
    """Clips every group of the optimizer by its own norm."""

    def __init__(self, clip: float) -> None:
        self.clip = clip

    def on_pre_optimizer_step(self, *state: Any, optimizer: torch.optim.Optimizer, **named: Any) -> None:
        for group in optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], self.clip)


def _checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Switch gradient checkpointing, under its newer name where there is one; never the reentrant kind.

    The reentrant kind runs backward through the table of CLEX once for every layer, which it cannot.
    """
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
