"""Replacing the forward of one module instance, and putting back exactly what was there."""

from collections.abc import Callable
from typing import Any

from torch import nn

MISSING = object()


class Override:
    """The forward of `module` replaced by `forward` until `restore`.

    Attributes:
        original: what the forward was; hooks of other libraries that live on the instance included.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module = module
        self.original: Callable[..., Any] = module.forward
        self._instance = module.__dict__.get("forward", MISSING)
        module.__dict__["forward"] = forward

    def restore(self) -> None:
        if self._instance is MISSING:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self._instance
