"""Training documents: files into token ids, and the sequences that are drawn from them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.errors import EvaluationError, TrainingError
from ropewalk.evaluate import corpus
from ropewalk.train.collator import Example
from ropewalk.train.positions import Sampler

ORDER, DRAW = range(2)  # what a generator is for


def read_documents(sources: Sequence[str], tokenizer: Any) -> list[np.ndarray]:
    """The documents of files as token ids, int64, in order.

    Args:
        sources: `.txt` files (each one document), `.jsonl` files (a document a line, under "text", or under "ids" as
            token ids), or names of bundled texts.
        tokenizer: of the model.

    Raises:
        TrainingError: a file that is missing or cannot be read, with the line.
    """
    found: list[np.ndarray] = []
    for source in sources:
        if source.endswith(".jsonl"):
            found += [_ids(line, tokenizer) for line in _lines(Path(source))]
        else:
            try:
                text = corpus.load(source)
            except EvaluationError as error:
                raise TrainingError(f"cannot train on {source!r}: {error}; .txt and .jsonl files are read") from error
            found.append(_ids({"text": text}, tokenizer))
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"cannot read {str(path)!r} ({error}); give a UTF-8 file, one JSON object a line"
        ) from error
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if not isinstance(value.get("text", value.get("ids")), str | list):
                raise TypeError("neither text nor ids")
        except (ValueError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{str(path)!r}, line {number}: {error}; wanted a JSON object with a text or a list of ids"
            ) from error
        yield value


def _ids(value: dict[str, Any], tokenizer: Any) -> np.ndarray:
    given = value.get("ids")
    if given is None:
        given = tokenizer(value["text"], verbose=False)["input_ids"]
    ids = np.asarray(given)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise TrainingError("ids must be one list of whole numbers for each document")
    return ids.astype(np.int64)


class Sequences:
    """A training set: `count` sequences, each a function of the seed and its index alone.

    So a run that is resumed, spread over processes or loaded by workers sees what an unbroken one sees. Every piece of
    the documents comes once an epoch, in an order of the epoch, with positions drawn anew.

    Args:
        documents: token ids, int64 each.
        sampler: of positions.
        length: tokens of a sequence.
        count: sequences in all.
        seed: of order and positions.

    Attributes:
        pieces: what the documents are cut into: document, first token, tokens. What is left of a document after its
            last whole sequence is left out.

    Raises:
        TrainingError: no document is as long as a sequence.
    """

    def __init__(
        self, documents: Sequence[np.ndarray], sampler: Sampler, *, length: int, count: int, seed: int
    ) -> None:
        self.documents = documents
        self.sampler = sampler
        self.length = length
        self.count = count
        self.seed = seed
        size = length * sampler.stretch
        self.pieces = [
            (number, start, min(size, len(document) - start))
            for number, document in enumerate(documents)
            for start in range(0, len(document), size)
            if len(document) - start >= length
        ]
        if not self.pieces:
            longest = max((len(document) for document in documents), default=0)
            raise TrainingError(
                f"no document has {length} tokens (the longest of {len(documents)} has {longest}); give longer "
                "documents or train on shorter sequences"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(index)
        epoch, place = divmod(index, len(self.pieces))
        order = np.random.default_rng([self.seed, ORDER, epoch]).permutation(len(self.pieces))
        number, start, size = self.pieces[order[place]]
        generator = np.random.default_rng([self.seed, DRAW, index])
        drawn = self.sampler.draw(generator, self.length, size)
        return Example.of(self.documents[number][start : start + size], drawn)
