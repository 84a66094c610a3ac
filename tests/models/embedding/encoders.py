"""Tiny encoders with a position table, their tokenizer and pipelines, built in memory."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

LENGTH = 12  # positions that the tables have for texts
WORDS = 40
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids as in RoBERTa: padding is 1
PAD = 1
PADDED = ("roberta", "xlm-roberta", "camembert", "mpnet")  # padding has a row of its own, and positions begin behind it
PLAIN = ("bert", "electra", "distilbert", "albert")
FAMILIES = (*PLAIN, *PADDED)
LLAMA_LENGTH = 16


def build(family: str, length: int = LENGTH, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random encoder of a family, whose table has `length` positions for texts."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(SPECIALS) + WORDS,
        hidden_size=16,
        embedding_size=16,
        dim=16,
        num_hidden_layers=2,
        n_layers=2,
        num_attention_heads=2,
        n_heads=2,
        intermediate_size=24,
        hidden_dim=24,
        max_position_embeddings=length + (2 if family in PADDED else 0),
        pad_token_id=PAD,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.5,  # so that positions show in the result
        **changes,
    )
    return AutoModel.from_config(config).eval()


def table_of(model: PreTrainedModel) -> Tensor:
    return model.embeddings.position_embeddings.weight.data


def lengthened(model: PreTrainedModel, family: str, rows: list[Tensor], **changes: Any) -> PreTrainedModel:
    """The same encoder built by transformers with a longer table, whose rows for texts are these: the oracle."""
    other = build(family, len(rows), **changes)
    weights = model.state_dict()
    name = "embeddings.position_embeddings.weight"
    weights[name] = torch.cat([weights[name][: 2 if family in PADDED else 0], torch.stack(rows)])
    other.load_state_dict(weights)
    return other


def texts(*lengths: int, seed: int = 0) -> list[list[int]]:
    """Token ids of texts of so many tokens, special tokens included."""
    generator = torch.Generator().manual_seed(seed)
    words = [torch.randint(len(SPECIALS), len(SPECIALS) + WORDS, (n - 2,), generator=generator) for n in lengths]
    return [[0, *one.tolist(), 2] for one in words]


def batch(some: list[list[int]], side: str = "right") -> dict[str, Tensor]:
    """Texts as one padded batch."""
    width = max(map(len, some))
    pads = [[PAD] * (width - len(one)) for one in some]
    ids = [one + pad if side == "right" else pad + one for one, pad in zip(some, pads, strict=True)]
    mask = [
        [1] * len(one) + [0] * len(pad) if side == "right" else [0] * len(pad) + [1] * len(one)
        for one, pad in zip(some, pads, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def states(model: PreTrainedModel, some: list[list[int]], side: str = "right") -> list[Tensor]:
    """The last hidden states of every text, without padding, [tokens, hidden] each."""
    given = batch(some, side)
    found = model(**given).last_hidden_state
    return [row[there.bool()] for row, there in zip(found, given["attention_mask"], strict=True)]


def tokenizer(*, specials: bool = True) -> PreTrainedTokenizerFast:
    """Words w0, w1, ... and "a", one token each, between <s> and </s> (unless specials is off)."""
    words = ["a", *(f"w{i}" for i in range(WORDS - 1))]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIALS + words)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if specials:
        fast.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>",
    )  # fmt: skip


def save(model: PreTrainedModel, folder: Path, *, specials: bool = True) -> Path:
    """Model and tokenizer as a plain transformers folder."""
    model.save_pretrained(folder)
    tokenizer(specials=specials).save_pretrained(folder)
    return folder


def pipeline(model: PreTrainedModel, *, pooling: str = "mean", limit: int | None = 8, specials: bool = True):
    """A SentenceTransformer of a model: pooled, normalised, cut at `limit` tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with tempfile.TemporaryDirectory() as folder:
        first = Transformer(str(save(model, Path(folder), specials=specials)), max_seq_length=limit)
    first.model.eval()
    modules = [first, Pooling(model.config.hidden_size, pooling_mode=pooling), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu").eval()


def words(count: int, seed: int = 0) -> str:
    """A text of so many words."""
    generator = torch.Generator().manual_seed(seed)
    return " ".join(f"w{int(i)}" for i in torch.randint(0, WORDS - 1, (count,), generator=generator))


def llama() -> PreTrainedModel:
    """A tiny decoder without its head."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=len(SPECIALS) + WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=24, max_position_embeddings=LLAMA_LENGTH, pad_token_id=PAD,
        initializer_range=0.5,
    )  # fmt: skip
    return AutoModel.from_config(config).eval()
