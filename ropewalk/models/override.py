"""Replacing one method of one module instance, and putting back exactly what was there."""

from collections.abc import Callable
from typing import Any

from torch import nn


class Override:
    """The method `name` of `module` replaced by `function` until `restore`.

    Attributes:
        original: what the method was, hooks of other libraries that live on the instance included.
    """

    def __init__(self, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
        self.module = module
        self.name = name
        self.original: Callable[..., Any] = getattr(module, name)
        self._on_instance = name in module.__dict__
        module.__dict__[name] = function

    def restore(self) -> None:
        if self._on_instance:
            self.module.__dict__[self.name] = self.original
        else:
            del self.module.__dict__[self.name]
