"""A tiny sentence-transformers pipeline that finds texts by their words, as far as it reads them."""

import re
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ropewalk.evaluate import corpus
from ropewalk.evaluate.embedding.facts import FACTS
from ropewalk.evaluate.embedding.people import NAMES
from ropewalk.evaluate.ruler.wording import NOISE

WINDOW = 64  # rows of its position table
LIMIT = 48  # tokens that the pipeline reads
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of LongEmbed's tasks and of some running text, between [CLS] and [SEP]."""
    texts = [*NAMES, *(part for fact in FACTS for part in fact), *NOISE, "what is the passkey for pass key remember it"]
    words = re.findall(r"\w+|[^\w\s]+", " ".join([*texts, corpus.load("sotu")[:20_000]]).lower())
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def tiny_encoder(folder: Path) -> Path:
    """A folder with a random BERT and its tokenizer; small weights keep its states those of the words."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.05,
    )
    model = BertModel(config)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_embedder(folder: Path) -> SentenceTransformer:
    """A pipeline of the encoder, mean pooling and normalisation, saved in a folder of its own under `folder`."""
    transformer = Transformer(str(tiny_encoder(folder / "encoder")), max_seq_length=LIMIT)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").eval()
    model.save_pretrained(str(folder / "pipeline"), create_model_card=False)
    return model
