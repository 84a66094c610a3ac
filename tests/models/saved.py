"""What the tests of saving and exporting share: a tiny tokenizer, a base model in a folder, and its logits."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.architectures import PRETRAINED_LENGTH, VOCABULARY, WORKS

TARGET = 4 * PRETRAINED_LENGTH
FAMILIES = ("llama", "qwen3", "mistral", "gpt_neox", "phi")  # plain, query norm, window, and two of partial rotary


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", model_max_length=PRETRAINED_LENGTH)


def save_base(folder: Path, family: str) -> Path:
    """A tiny random model of a family with a tokenizer, as `save_pretrained` leaves them."""
    WORKS[family]().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tokens(length: int = TARGET) -> Tensor:
    """int64 [1, length]"""
    return torch.randint(1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(3))


def logits(model: PreTrainedModel, length: int = TARGET) -> Tensor:
    with torch.no_grad():
        return model(tokens(length)).logits


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
