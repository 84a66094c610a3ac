"""Tiny random models in folders, prompts, and what our transformers path answers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.generation import MaxLengthCriteria, StoppingCriteriaList

import ropewalk
from ropewalk.methods import Method
from tests.vllm.engine import NEW, Answer

PRETRAINED = 64
TARGET = 256
VOCABULARY = 99
NEAR = 1e-4  # of log-probabilities, float32

# The CPU backend of vLLM wants heads of 32 or 64. Wide weights, so that a wrong rotation shows.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": PRETRAINED,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}


def save_model(folder: Path, family: str = "llama", **overrides: Any) -> Path:
    """A random float32 model of a family, the same at every call."""
    config = AutoConfig.for_model(family, **SIZES | overrides)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().save_pretrained(folder)
    return folder


def prompts(*lengths: int, seed: int = 3) -> list[list[int]]:
    """Random token ids, one list for each length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def setting(**entry: Any) -> dict[str, Any]:
    """Options of an engine with this ropewalk entry, for requests of up to `TARGET` tokens."""
    return {"max_model_len": TARGET, "hf_overrides": {"model_max_length": TARGET, "ropewalk": entry}}


def expected(folder: Path, method: Method | str | None, asked: list[list[int]], new: int = NEW) -> list[Answer]:
    """Greedy answers of our transformers path, or of the stock model, each prompt alone."""
    model = load(folder)
    if method is None:
        return [greedy(model, prompt, new) for prompt in asked]
    by_length = ropewalk.extend(model, method, target_length=TARGET).method.length_dependent
    return [greedy(model, prompt, new, TARGET if by_length else None) for prompt in asked]


def greedy(model: PreTrainedModel, prompt: list[int], new: int, total: int | None = None) -> Answer:
    """Greedy tokens.

    Args:
        total: admit the text as one of so many tokens, though only `new` are written; an engine with a method that
            depends on the length has the table of its target.
    """
    limits = {"max_new_tokens": new} if total is None else {"max_new_tokens": total - len(prompt)}
    enough = MaxLengthCriteria(len(prompt) + new)
    done = model.generate(
        torch.tensor([prompt]),
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        stopping_criteria=StoppingCriteriaList([enough]),
        **limits,
    )
    best, second = torch.cat(done.logits).log_softmax(-1).topk(2).values.unbind(-1)
    tokens = done.sequences[0, len(prompt) :].tolist()
    return Answer(tokens, best.tolist(), margins=(best - second).tolist())


def require_alike(found: list[Answer], wanted: list[Answer]) -> None:
    """Nearly the same log-probabilities, and the same tokens as far as no two of them are equally good."""
    for one, other in zip(found, wanted, strict=True):
        same = [a == b for a, b in zip(one.tokens, other.tokens, strict=True)]
        until = same.index(False) if False in same else len(same)
        assert all(margin <= NEAR for margin in other.margins[until : until + 1]), f"token {until} is another"
        both = zip(one.logprobs[: until + 1], other.logprobs[: until + 1], strict=True)
        assert max(abs(a - b) for a, b in both) <= NEAR
