"""LongRoPE2's mixed-window training: short rows keep the short table, long ones have the rescaled table."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import TrainingError
from ropewalk.methods import LongRoPE
from ropewalk.train.rows import RowTables


class MixedTables(RowTables):
    """Both tables of a LongRoPE method in a model: rows at t = 1 are rotated by the short one, all others by the long.

    They are the tables that inference switches between at the trained window (arXiv 2502.20082, section 3.3), attention
    factor included; the paper's short texts have none: give attention_factor=1 for that, or for both.

    Args:
        model: to train.
        method: `longrope`; without short factors, the short table is the model's own.
        target_length: tokens that the long table is for.

    Attributes:
        method: with every field filled for the target.
    """

    def __init__(
        self, model: PreTrainedModel, method: LongRoPE, target_length: int, *, pretrained_length: int | None = None
    ) -> None:
        super().__init__(model, pretrained_length=pretrained_length)
        filled = method.resolve(self.spec, target_length)
        assert isinstance(filled, LongRoPE) and filled.original is not None
        if target_length <= filled.original:
            raise TrainingError(
                f"mixed windows train for texts beyond the {filled.original} tokens of the short table; raise the "
                f"target length of {target_length}"
            )
        self.method = filled
        both = [filled.table(self.spec, length) for length in (filled.original, target_length)]
        self._theta = torch.stack([one.theta() for one in both])
        self._scaling = torch.tensor([one.attention_scaling for one in both], dtype=torch.float64)

    def tables(self, time: Tensor) -> tuple[Tensor, Tensor]:
        long = (time > 1).long()
        device = torch.device("cpu") if time.device.type == "mps" else time.device
        return self._theta.to(device)[long], self._scaling.to(device)[long]
