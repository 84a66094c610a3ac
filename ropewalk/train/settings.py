"""What a training run is, as data that is written beside its result and compared when the run goes on."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ropewalk.errors import TrainingError

FILE = "training.json"
RESUMABLE = ("save_every", "log_every")  # what may change when a run goes on


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What every training run is set by.

    Attributes:
        method: in its text form.
        length: tokens of a sequence.
        target_length: tokens that the method is set up for.
        steps: optimizer steps.
        batch: sequences of one process in one forward.
        accumulate: forwards per step.
        rate: learning rate, warmed up linearly, then falling as a cosine to 0.
        warmup: steps.
        clip: norm that gradients are clipped to.
        seed: of every random choice.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
    """

    method: str
    length: int
    target_length: int
    steps: int
    batch: int = 4
    accumulate: int = 1
    rate: float = 2e-5
    warmup: int = 10
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        least = {"length": 2, "target_length": 1, "steps": 1, "batch": 1, "accumulate": 1, "save_every": 1}
        for name, low in (least | {"log_every": 1, "warmup": 0}).items():
            if getattr(self, name) < low:
                raise TrainingError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("rate", "clip"):
            self.require_positive(name)

    def require_positive(self, name: str) -> None:
        """Raise TrainingError unless a setting is a number above 0."""
        if not 0 < getattr(self, name) < float("inf"):
            raise TrainingError(f"{name} must be a number above 0, got {getattr(self, name)}")

    @property
    def count(self) -> int:
        """Sequences of the whole run, in one process."""
        return self.steps * self.batch * self.accumulate

    def write(self, folder: Path) -> None:
        """Write the settings into the folder of a run, whole or not at all: other processes of the run read them."""
        partial = folder / f"{FILE}.{os.getpid()}.part"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(partial, folder / FILE)

    def require_same(self, folder: Path) -> None:
        """Raise TrainingError unless the run in a folder is this one."""
        try:
            found = json.loads((folder / FILE).read_text())
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"there is no run to go on with in {str(folder)!r} ({error}); start it without --resume"
            ) from error
        for name, value in asdict(self).items():
            if name not in RESUMABLE and found.get(name) != value:
                raise TrainingError(
                    f"the run in {str(folder)!r} has {name} = {found.get(name)!r}, this one {value!r}; go on with the "
                    "same settings, or begin in another folder"
                )


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """A run on language modelling.

    Attributes:
        positions: the sampler, as Python writes it.
        rate: of the model's weights.
        network_rate: learning rate of the network of CLEX. Adam's step moves ln theta at T by up to about
            rate x hidden x (T - 1), so that 1e-3 reorders pairs within ten steps; 2e-5 is the authors'.
        network_only: train the network of CLEX and leave the model's weights as they are.
        lora: rank of low-rank updates (arXiv 2106.09685) that are trained in place of the model's weights, and merged
            into them at the end; 0 trains the weights themselves.
        lora_alpha: the updates are scaled by lora_alpha / lora.
        lora_targets: names of the linear layers that have updates, joined by commas, or "all-linear".
        clip: norm that the gradients of the model's weights are clipped to, and apart from them those of the network,
            which are up to 2e5 times as large: together, they would silence the model.
        amplification: hidden units of the network per rotary dimension.
        checkpointing: recompute activations in the backward pass, which saves memory.
        data_sha256: what the run trains on, and
        processes: that its batches are divided among: `train` fills both in, so that no run goes on with others.
    """

    positions: str
    network_rate: float = 2e-5
    network_only: bool = False
    lora: int = 0
    lora_alpha: float = 16.0
    lora_targets: str = "all-linear"
    amplification: int = 1
    checkpointing: bool = False
    data_sha256: str = ""
    processes: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("network_rate", "lora_alpha"):
            self.require_positive(name)
        if self.lora < 0:
            raise TrainingError(f"lora must be a rank of 1 or more, or 0 for none, got {self.lora}")
        if self.lora and self.network_only:
            raise TrainingError("network_only leaves the model as it is, and lora changes it; take one of them")
