"""A tiny random Llama with a tiny tokenizer, and two ways to run the command line."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ropewalk.cli import main
from ropewalk.evaluate import corpus
from ropewalk.evaluate.tasks.facts import KINDS

WINDOW = 64  # tokens that the tiny model claims to be trained on

Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 4 rotary pairs and a tokenizer of one token a word, without a chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    facts = " ".join(f"{kind.prefix} {' '.join(kind.candidates)} ." for kind in KINDS)
    words = re.findall(r"\w+|[^\w\s]+", facts + " " + corpus.load("sotu")[:50_000])
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(["<unk>", "</s>", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        bos_token_id=None,
        eos_token_id=None,  # a random model must not stop by chance
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run() -> Run:
    """Run the real entry point in a process of its own."""

    def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ropewalk", *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
