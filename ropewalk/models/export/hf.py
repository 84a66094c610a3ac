"""A folder that stock transformers, and every engine that reads its configurations, runs with our frequency table."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import ModelError
from ropewalk.models.census import quietly
from ropewalk.models.export.buckets import Bucket, buckets
from ropewalk.models.export.rope import Rope, express, stock_table, written
from ropewalk.models.folder import fresh_folder
from ropewalk.models.huggingface import Extension
from ropewalk.models.seam import device_of

CONFIG = "config.json"
PROBE = 32  # tokens that are compared after reloading
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Exported:
    """One folder that was written.

    Attributes:
        folder: where it is.
        length: the longest text that it is for, tokens.
        rope_type: the type that engines read there.
        difference: largest relative distance of the table that transformers builds from the method's own.
    """

    folder: Path
    length: int
    rope_type: str
    difference: float


def export_hf(extension: Extension, folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> list[Exported]:
    """Write the extended model so that stock transformers runs it: one folder, or one below it for each bucket.

    The configuration is read back by transformers before the folder takes its name: the table that it builds must be
    the one that was found for it, bit by bit.

    Args:
        extension: what `extend` returned.
        folder: a new folder; with several buckets they lie in it as length-4096, length-8192, and their weights are
            hard links of one file where the system has them.
        tokenizer: written too, with its longest length raised.

    Raises:
        MethodError: a method that is more than a table, or that changes nothing.
        ModelError: a model whose configuration cannot carry the table, or a folder that exists.
    """
    model, spec = extension.model, extension.spec
    cases = [
        (bucket, express(model.config, spec, extension.method, bucket))
        for bucket in buckets(extension.method, spec, extension.target_length)
    ]
    with fresh_folder(folder) as partial:
        places = [partial / name(bucket) if len(cases) > 1 else partial for bucket, _ in cases]
        for place, (bucket, rope) in zip(places, cases, strict=True):
            if place is places[0]:
                model.save_pretrained(place)
            else:
                _link(places[0], place)
            write_rope(place / CONFIG, rope)
            with longest(tokenizer, bucket.length):
                tokenizer.save_pretrained(place)
            _check(place, rope)
    folder = Path(folder)
    return [
        Exported(
            folder / name(bucket) if len(cases) > 1 else folder,
            bucket.length,
            rope.parameters["rope_type"],
            rope.difference,
        )
        for bucket, rope in cases
    ]


def name(bucket: Bucket) -> str:
    """The folder of one bucket among several."""
    return f"length-{bucket.length}"


def write_rope(file: Path, rope: Rope) -> None:
    """Put a table into a saved config.json."""
    config = json.loads(file.read_text())
    file.write_text(json.dumps(written(config, rope.parameters, rope.max_position_embeddings), indent=2) + "\n")


@contextlib.contextmanager
def longest(tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[None]:
    """A tokenizer that takes `length` tokens without a warning, for as long as it is saved."""
    own = tokenizer.model_max_length
    tokenizer.model_max_length = max(own, length)
    try:
        yield
    finally:
        tokenizer.model_max_length = own


def _link(source: Path, place: Path) -> None:
    """The same model once more, its weights as hard links."""
    place.mkdir()
    for file in source.iterdir():
        try:
            if file.suffix in _WEIGHTS:
                os.link(file, place / file.name)
                continue
        except OSError:  # a file system without hard links
            pass
        shutil.copyfile(file, place / file.name)


def _check(place: Path, rope: Rope) -> None:
    config = AutoConfig.from_pretrained(place)
    inv_freq, attention = stock_table(config)
    if not ((inv_freq == rope.inv_freq).all() and attention == rope.attention_scaling):
        raise ModelError(
            f"{config.model_type} cannot be exported: transformers reads another table back from its configuration"
        )


def stock_difference(extension: Extension, exported: Exported) -> float:
    """How far the exported folder in stock transformers is from the extension: |difference| / |logits|, 2-norms.

    Loads the folder beside the extended model: the memory of both is needed.
    """
    model = extension.model
    stock = AutoModelForCausalLM.from_pretrained(exported.folder, dtype=model.dtype).to(device_of(model))
    vocabulary = model.config.vocab_size
    tokens = torch.randint(1, vocabulary, (1, min(PROBE, exported.length)), generator=torch.Generator().manual_seed(0))
    if extension.method.length_dependent:
        extension.pin([exported.length])
    try:
        ours = _logits(model, tokens)
    finally:
        if extension.method.length_dependent:
            extension.pin(None)
    return float((ours - _logits(stock, tokens)).norm() / ours.norm())


def _logits(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with quietly(model):
        result: Any = model(tokens.to(device_of(model)), use_cache=False)
    return result.logits.float()
