"""The versions that a saved model was written with, and the range of transformers that this package was tested on."""

from importlib.metadata import version

import torch
import transformers

from ropewalk.errors import ModelError

TESTED = ((5, 19), (6, 0))  # from, and up to but without; as in pyproject.toml


def versions() -> dict[str, str]:
    """Of the packages that decide what a model computes."""
    return {
        "ropewalk": version("ropewalk"),
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
    }


def require_transformers() -> None:
    """Raise ModelError when the installed transformers is outside the tested range."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    if not TESTED[0] <= (major, minor) < TESTED[1]:
        first, last = (".".join(map(str, end)) for end in TESTED)
        raise ModelError(
            f"transformers {transformers.__version__} is installed; ropewalk is tested on {first} up to {last}: "
            f"pip install 'transformers>={first},<{last}'"
        )
