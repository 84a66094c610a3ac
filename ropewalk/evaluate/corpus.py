"""The texts that evaluations read: two bundled ones, free to use, or a text file of the user's own."""

import hashlib
import lzma
from functools import cache
from importlib import resources
from pathlib import Path

from ropewalk.errors import EvaluationError
from ropewalk.registry import unknown

# Sources, licences and hashes: ropewalk/data/README.md.
NAMES: tuple[str, ...] = ("moby-dick", "sotu")
# Stock SmolLM2 finds ten of ten facts at 6k and none at 16k in either; of the two this is prose like that of today
# (3.1 nats per token inside its window, the novel 3.8), and not one book that models may know by heart.
DEFAULT = "sotu"


def load(name: str) -> str:
    """The plain text of a corpus, paragraphs separated by a blank line.

    Args:
        name: one of NAMES, or the path of a UTF-8 text file that ends in `.txt`.

    Returns:
        The text, never empty.

    Raises:
        EvaluationError: the name is unknown, or the file is missing, empty or not UTF-8.
    """
    if name in NAMES:
        return _bundled(name)
    if not name.endswith(".txt"):
        raise EvaluationError(f"{unknown('text', name, list(NAMES))}; or give the path of a .txt file")
    file = Path(name).expanduser()
    if not file.is_file():
        raise EvaluationError(f"no text file at {name}; give a file that exists, or one of {', '.join(NAMES)}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise EvaluationError(f"{name} holds no text; give a file with paragraphs separated by blank lines")
    return text


@cache
def _bundled(name: str) -> str:
    return lzma.decompress(resources.files("ropewalk").joinpath("data", f"{name}.txt.xz").read_bytes()).decode("utf-8")


def paragraphs(name: str) -> list[str]:
    """The paragraphs of a corpus in order, each without line breaks and never empty; arguments and errors of `load`."""
    blocks, lines = [], []
    for line in [*load(name).splitlines(), ""]:
        if line.strip():
            lines += line.split()
        elif lines:
            blocks.append(" ".join(lines))
            lines = []
    return blocks


def sha256(name: str) -> str:
    """The hash of a corpus's plain text, as results record it: 64 hexadecimal digits; errors of `load`."""
    return hashlib.sha256(load(name).encode("utf-8")).hexdigest()
