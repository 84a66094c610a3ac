"""What every training run shares: its arguments, its folder, its order, and where it stops."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ropewalk.errors import TrainingError
from ropewalk.train.network import whole
from ropewalk.train.settings import RunSettings

CHECKPOINTS = "checkpoints"


def require_accelerate() -> None:
    """Raise TrainingError where the library that Trainer needs is missing."""
    if find_spec("accelerate") is None:
        raise TrainingError("training needs accelerate, which is not installed; pip install 'ropewalk[train]'")


def begin(settings: RunSettings, folder: Path, *, resume: bool) -> str | None:
    """Open the folder of a run, and give the checkpoint that it goes on from.

    Raises:
        TrainingError: a run is there and is not to go on, or it has other settings.
    """
    if resume:
        settings.require_same(folder)
    elif (folder / CHECKPOINTS).exists():
        raise TrainingError(f"there is a run in {str(folder)!r} already; resume it, or give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    settings.write(folder)
    return last_checkpoint(folder / CHECKPOINTS)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in a folder that was written to its end, or None; Trainer writes its state last."""
    numbered = [(int(place.name.rpartition("-")[2]), place) for place in folder.glob("checkpoint-*[0-9]")]
    return next((str(place) for _, place in sorted(numbered, reverse=True) if _complete(place)), None)


def _complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (OSError, ValueError):  # a process was killed while it wrote
        return False
    return True


def stopped(args: TrainingArguments, state: TrainerState, reason: str) -> TrainingError:
    """The error of a run that cannot go on, with its step and the last checkpoint before."""
    last = last_checkpoint(Path(args.output_dir)) or "none was written"
    return TrainingError(
        f"step {state.global_step}: {reason}; the last good checkpoint: {last}; lower the learning rate"
    )


def arguments(settings: RunSettings, folder: Path) -> TrainingArguments:
    """Trainer's arguments for a run in a folder.

    Raises:
        TrainingError: several GPUs in one process, where Trainer would give each the batch of a process: more rows a
            step than were drawn.
    """
    found = TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        max_grad_norm=0.0,  # by Clip
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=settings.log_every,
        save_steps=settings.save_every,
        save_total_limit=2,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
    )
    if found.n_gpu > 1:
        raise TrainingError(
            f"this process sees {found.n_gpu} GPUs; start one for each (torchrun --nproc-per-node {found.n_gpu} -m "
            "ropewalk train ...), or show it one (CUDA_VISIBLE_DEVICES=0)"
        )
    return found


def losses(trainer: Trainer) -> dict[int, float]:
    """Mean loss since the line before, by step."""
    return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}


class OrderedTrainer(Trainer):
    """Trainer that keeps the order of its data set and stops at the first bad loss."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        found = super().compute_loss(model, inputs, *rest, **named)
        loss: Tensor = found[0] if isinstance(found, tuple) else found
        if not math.isfinite(float(loss.detach())):
            raise stopped(self.args, self.state, f"the loss is {float(loss.detach())}")
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """In the order of the data set, which has one of its own for every epoch."""
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


class Clip(TrainerCallback):
    """Clips every group of the optimizer by its own norm, and stops where one is not finite: weights stay as good."""

    def __init__(self, clip: float) -> None:
        self.clip = clip

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **named: Any
    ) -> None:
        for group in named["optimizer"].param_groups:
            norm = float(whole(torch.nn.utils.clip_grad_norm_(group["params"], self.clip)))
            if not math.isfinite(norm):
                raise stopped(args, state, f"the norm of the gradient is {norm}")
