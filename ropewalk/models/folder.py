"""A folder that appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ropewalk.errors import ModelError


@contextlib.contextmanager
def fresh_folder(folder: str | Path) -> Iterator[Path]:
    """An empty folder to fill; it takes the wanted name by one rename when the block ends, and is gone if it fails.

    Args:
        folder: where it shall be. Folders above it are made; nothing that lies there is ever overwritten.

    Raises:
        ModelError: the name is taken by a file, or by a folder that is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{str(folder)!r} exists already; give a new folder, or remove that one first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process of the same number that was killed
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rmdir()  # empty; not every system renames onto an empty folder
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
