"""The log-n scale of an encoder: the queries of every text multiplied by max(1, ln n / ln L)."""

import math

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ropewalk.errors import ModelError
from ropewalk.models.seam import name_of

QUERY = ("query", "q", "q_lin", "q_proj")  # what transformers' encoders call the projection


class LogN:
    """Hooks on the query projections of one model.

    Attributes:
        pretrained_length: L, tokens.
    """

    def __init__(self, model: nn.Module, pretrained_length: int) -> None:
        """Raises ModelError when the model has no query projection of a known name."""
        self.pretrained_length = pretrained_length
        self._factors: Tensor | None = None
        found = [
            module
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear) and path.rpartition(".")[2] in QUERY
        ]
        if not found:
            raise ModelError(f"{name_of(model)} has no query projection that log_n knows; leave log_n off")
        self._hooks: list[RemovableHandle] = [module.register_forward_hook(self._scale) for module in found]

    def admit(self, lengths: Tensor) -> None:
        """Take the lengths of the texts of the batch that follows, tokens, [B]."""
        factors = lengths.clamp(min=1).double().log() / math.log(self.pretrained_length)
        self._factors = factors.clamp(min=1.0)[:, None, None]

    def _scale(self, module: nn.Module, args: tuple[Tensor, ...], projected: Tensor) -> Tensor:
        assert self._factors is not None
        return projected * self._factors.to(projected)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
