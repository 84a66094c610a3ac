"""A tokenizer of one token a word."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def words(known: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these words, and an end."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", "</s>", *known.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
