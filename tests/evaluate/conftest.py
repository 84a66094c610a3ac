import re

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ropewalk.evaluate import corpus
from ropewalk.evaluate.tasks.facts import KINDS


@pytest.fixture(scope="session")
def tokenizer():
    """One token a word: the words of the facts and the most frequent ones of the text; blank lines have no token."""
    facts = " ".join(f"{kind.prefix} {' '.join(kind.candidates)} ." for kind in KINDS)
    words = re.findall(r"\w+|[^\w\s]+", facts + " " + corpus.load("sotu")[:100_000])
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(["<unk>", "<s>", *words]))}
    words_only = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words_only.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words_only, unk_token="<unk>", bos_token="<s>")


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()
