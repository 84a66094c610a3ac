import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ropewalk.evaluate import corpus
from ropewalk.evaluate.document import encode


@pytest.fixture(scope="session")
def bpe():
    """A small byte-level tokenizer as models have them: single digits, and a start token before every text."""
    whole = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    whole.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    whole.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    whole.train_from_iterator([corpus.load("sotu")[:100_000]], trainer)
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def bytes_only():
    """One token a byte: the longest texts that any tokenizer makes; no start token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=whole)


@pytest.fixture
def model(bpe):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(bpe),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.3,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def answering(model, bpe):
    """`answering(document, said)`: the model says `said[question]` after a question to the document, then ends."""

    def make(document, said):
        scripts = {
            tuple(encode(bpe, question.text)): [*encode(bpe, text), model.generation_config.eos_token_id]
            for question, text in zip(document.frame.questions, said, strict=True)
        }
        heard = []

        def steer(_module, _args, kwargs, output):
            held = kwargs["past_key_values"].get_seq_length()
            ids = kwargs["input_ids"][0].tolist()
            del heard[held - len(ids) :]
            heard.extend(ids)
            rows = output.logits.shape[1]
            for row in range(rows):
                after = tuple(heard[len(document.ids) : len(heard) - rows + row + 1])
                for query, script in scripts.items():
                    done = after[len(query) :]
                    if after[: len(query)] == query and tuple(script[: len(done)]) == done and len(done) < len(script):
                        output.logits[0, row, script[len(done)]] += 1000.0

        model.register_forward_hook(steer, with_kwargs=True)
        return model

    return make


def silent(stage, fraction):
    assert stage in ("read", "ask") and 0 <= fraction <= 1.001


@pytest.fixture
def report():
    return silent
