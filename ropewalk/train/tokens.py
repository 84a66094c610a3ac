"""Training documents as token ids: made once, kept end to end in a file, and read from there."""

import hashlib
import json
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from ropewalk.errors import TrainingError
from ropewalk.evaluate.fingerprint import tokenizer_sha256
from ropewalk.folders import cache_folder
from ropewalk.train.sources import digest, stream

FORMAT = 1  # raise it when the same sources give other tokens or files
IDS, BOUNDS = "ids.bin", "bounds.npy"


class Documents(Sequence[np.ndarray]):
    """Documents that stand end to end in one array, which may be larger than memory.

    Args:
        ids: of all tokens, int32.
        bounds: int64 [documents + 1], where each begins; the last is the end.
    """

    def __init__(self, ids: np.ndarray, bounds: np.ndarray) -> None:
        self.ids = ids
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.ids[self.bounds[index] : self.bounds[index + 1]]

    def joined(self) -> "Documents":
        """All of them as one, so that nothing of a short document is left out."""
        return Documents(self.ids, self.bounds[[0, -1]])


def read_documents(sources: Sequence[str], load: Callable[[], Any], *, end: bool = False) -> Documents:
    """The documents of some sources as token ids, tokenised once: the next run finds them in the cache.

    They are kept under $ROPEWALK_CACHE/tokens, by the SHA-256 of what the sources hold and of the tokenizer.

    Args:
        sources: see `ropewalk.train.sources.stream`; each holds texts or token ids, not both.
        load: gives the tokenizer; called only where a source holds texts.
        end: put the tokenizer's end token behind every text.

    Raises:
        TrainingError: a source that cannot be read, or has no document; an end that the tokenizer does not have.
    """
    firsts = [next(stream(source), None) for source in sources]
    if None in firsts:
        raise TrainingError(f"{sources[firsts.index(None)]!r} has no document; give a source with one or more")
    tokenizer = load() if any(isinstance(one, str) for one in firsts) else None
    if end and tokenizer is not None and tokenizer.eos_token_id is None:
        raise TrainingError("the tokenizer has no end token to put between documents; do not join them")
    made_by = None if tokenizer is None else tokenizer_sha256(tokenizer)
    parts = [FORMAT, [digest(source) for source in sources], made_by, end and tokenizer is not None]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    folder = cache_folder() / "tokens" / key[:32]
    if not folder.is_dir():
        found = (_ids(one, tokenizer, end) for source in sources for one in _alike(source))
        _write(folder, found)
    bounds = np.load(folder / BOUNDS)
    if bounds[-1] == 0:
        raise TrainingError(f"the documents of {list(sources)} have no tokens; give others")
    return Documents(np.memmap(folder / IDS, dtype=np.int32, mode="r"), bounds)


def _alike(source: str) -> Iterator[str | list[int]]:
    """The documents of a source, all of the kind of its first."""
    documents = stream(source)
    first = next(documents)
    for number, one in enumerate(chain([first], documents), 1):
        if type(one) is not type(first):
            raise TrainingError(f"{source!r}, document {number}: texts and token ids in one source; split it in two")
        yield one


def _ids(document: str | list[int], tokenizer: Any, end: bool) -> list[int]:
    if isinstance(document, list):
        return document
    ids: list[int] = tokenizer(document, verbose=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if end and ids[-1:] != [tokenizer.eos_token_id] else ids


def _write(folder: Path, documents: Iterator[list[int]]) -> None:
    """Write the files, whole or not at all; another process that was faster is left alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        bounds = [0]
        with (partial / IDS).open("wb") as opened:
            for ids in documents:
                array("i", ids).tofile(opened)
                bounds.append(bounds[-1] + len(ids))
        np.save(partial / BOUNDS, np.array(bounds))
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
