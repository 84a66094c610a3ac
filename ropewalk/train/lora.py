"""Low-rank updates of a model by PEFT: put in, trained in place of the weights, and merged."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.errors import TrainingError
from ropewalk.train.settings import Settings

ADAPTER = "adapter"  # folder of the updates alone, which PEFT loads
MARK = "lora_"  # in the names of their weights


class Lora:
    """The updates in a model.

    Attributes:
        adapted: PEFT's view of the model.
    """

    def __init__(self, adapted: Any) -> None:
        self.adapted = adapted
        self.merged = False

    def merge(self, folder: Path | None) -> None:
        """Write the updates into a folder of their own, if one is given, and add them to the weights."""
        if folder is not None:
            self.adapted.save_pretrained(folder / ADAPTER)
        self.adapted.merge_and_unload()
        self.merged = True


@contextlib.contextmanager
def adapted(model: PreTrainedModel, settings: Settings) -> Iterator[Lora | None]:
    """The model with updates in it for as long as the context lasts, if any are set.

    Unless they were merged, the model is as it was afterwards.

    Raises:
        TrainingError: peft is missing, or the model has no such layers.
    """
    if not settings.lora:
        yield None
        return
    try:
        import peft
    except ImportError as error:
        raise TrainingError("lora takes peft, which is not installed; pip install 'ropewalk[train]'") from error
    targets: Any = settings.lora_targets
    config = peft.LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha,
        target_modules=targets if targets == "all-linear" else [one.strip() for one in targets.split(",")],
    )
    asked = [(one, one.requires_grad) for one in model.parameters()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            lora = Lora(peft.get_peft_model(model, config))
        except ValueError as error:
            raise TrainingError(f"no updates for lora_targets={targets!r}: {error}") from error
    try:
        yield lora
    finally:
        if not lora.merged:
            lora.adapted.unload()
        for one, before in asked:
            one.requires_grad_(before)
