"""The loop of a run on language modelling: the table of every row, both groups of weights, its checkpoints, its log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments

from ropewalk.errors import TrainingError
from ropewalk.train.attached import Attached
from ropewalk.train.collator import require_mask
from ropewalk.train.learned import MODULE
from ropewalk.train.lora import MARK
from ropewalk.train.settings import Settings
from ropewalk.train.trainer import OrderedTrainer

LOG = "log.jsonl"
TRAINED = "trained.safetensors"  # of a checkpoint, where not all weights are trained


def of_network(name: str) -> bool:
    """Whether a parameter is of the network of CLEX."""
    return name.rpartition(".")[0].endswith(MODULE)


def is_trained(name: str, settings: Settings) -> bool:
    """Whether a run changes a parameter."""
    if of_network(name):
        return True
    return MARK in name if settings.lora else not settings.network_only


def groups(model: PreTrainedModel, settings: Settings) -> list[dict[str, Any]]:
    """The model's weights and the network's, each with its own rate; empty ones left out."""
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    own = [one for name, one in named if not of_network(name)]
    network = [one for name, one in named if of_network(name)]
    found = [{"params": own, "lr": settings.rate}, {"params": network, "lr": settings.network_rate}]
    return [group for group in found if group["params"]]


class Loop(OrderedTrainer):
    """Trainer that tells the tables which rows they have, and keeps only what is trained in its checkpoints."""

    def __init__(self, *, attached: Attached, settings: Settings, **named: Any) -> None:
        optimizer = torch.optim.AdamW(groups(named["model"], settings), weight_decay=0.0)
        super().__init__(optimizers=(optimizer, None), **named)
        self.remove_callback(PrinterCallback)
        self.attached = attached
        self.settings = settings
        self.times: list[float] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        time: Tensor = inputs.pop("time")
        mask: Tensor | None = inputs.get("attention_mask")
        require_mask(inputs["position_ids"], mask)
        if mask is not None and mask.ndim == 4:  # in the form that eager attention takes, too
            inputs["attention_mask"] = torch.zeros(mask.shape, dtype=self.attached.model.dtype, device=mask.device)
            inputs["attention_mask"].masked_fill_(~mask, torch.finfo(self.attached.model.dtype).min)
        self.attached.prepare(time, inputs["position_ids"], self.state.global_step)
        self.times += time.tolist()
        return super().compute_loss(model, inputs, *rest, **named)

    def log(self, logs: dict[str, float], *rest: Any, **named: Any) -> None:
        """With the length factors of the rows since the line before: mean and largest, of this process."""
        if "loss" in logs and self.times:
            logs |= {"t_mean": sum(self.times) / len(self.times), "t_max": max(self.times)}
            self.times = []
        super().log(logs, *rest, **named)

    @property
    def _partial(self) -> bool:
        return bool(self.settings.lora or self.settings.network_only)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self._partial:
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.attached.model.state_dict() if state_dict is None else state_dict
        trained = {name: one.contiguous() for name, one in weights.items() if is_trained(name, self.settings)}
        safetensors.torch.save_file(trained, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self._partial:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        file = Path(resume_from_checkpoint) / TRAINED
        try:
            weights = safetensors.torch.load_file(file)
        except (OSError, safetensors.SafetensorError) as error:
            raise TrainingError(
                f"cannot read the checkpoint {str(file)!r} ({error}); begin in another folder"
            ) from error
        unknown = self.attached.model.load_state_dict(weights, strict=False).unexpected_keys
        if unknown:
            raise TrainingError(f"the checkpoint {str(file)!r} is of another model: it has {unknown[0]}")


class Log(TrainerCallback):
    """Writes every line of a run's log into its folder, and tells it.

    Args:
        folder: of the run.
        tell: takes a line for people.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] | None) -> None:
        self.file = folder / LOG
        self.tell = tell

    def on_log(
        self, args: Arguments, state: TrainerState, control: TrainerControl, logs: Any = None, **named: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self.file.write_text("".join(json.dumps(line) + "\n" for line in state.log_history))
        shown = {name: value for name, value in (logs or {}).items() if name.startswith(("loss", "needle", "t_"))}
        if self.tell is not None and shown:
            told = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self.tell(f"step {state.global_step}/{state.max_steps}  {told}")


def tensorboard(folder: Path) -> TrainerCallback:
    """What writes a run's log for TensorBoard into a folder.

    Raises:
        TrainingError: tensorboard is missing.
    """
    from transformers.integrations import TensorBoardCallback

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard is not installed; pip install tensorboard, or train without it") from error
    return TensorBoardCallback(SummaryWriter(str(folder)))
