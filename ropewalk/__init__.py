"""ropewalk extends the context window of a pretrained RoPE language model and shows what that gained and cost."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropewalk.methods import METHODS, parse
    from ropewalk.models.huggingface import Extension, extend
    from ropewalk.models.sidecar import from_pretrained, save
    from ropewalk.plan import Plan

__version__ = "0.1.0"
__all__ = ["METHODS", "Extension", "Plan", "__version__", "extend", "from_pretrained", "parse", "save"]

_HOMES = {
    "extend": "ropewalk.models.huggingface",
    "Extension": "ropewalk.models.huggingface",
    "METHODS": "ropewalk.methods",
    "parse": "ropewalk.methods",
    "Plan": "ropewalk.plan",
    "save": "ropewalk.models.sidecar",
    "from_pretrained": "ropewalk.models.sidecar",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when they are first asked for, so that `import ropewalk` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
