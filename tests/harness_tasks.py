"""A tiny random model, and stand-ins for long benchmarks as files that lm-evaluation-harness reads."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW = 64  # tokens that the tiny model claims to be trained on
TARGET = 256  # longer than every prompt
DOCUMENTS = 4
# Words of each document; with what a task adds, one prompt is within WINDOW and the others are not.
LENGTHS = (20, 90, 100, 120)
WORDS = [f"w{index}" for index in range(60)] + ["Question", "Answer", "A", "B", "C", "D"]

# Like LongBench v2: one of four choices, one of them longer than a token.
CHOICE = {
    "task": "tiny_choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}} Question Answer",
    "doc_to_choice": ["A", "B", "C", "D A"],
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "mcc"}],
}
# Like BABILong: a generated answer after worked examples, which are drawn at random.
REPLY = {
    "task": "tiny_reply",
    "output_type": "generate_until",
    "fewshot_split": "train",
    "num_fewshot": 2,
    "doc_to_text": "{{text}} Question",
    "doc_to_target": "{{word}}",
    "generation_kwargs": {"do_sample": False, "max_gen_toks": 6, "until": []},
    "metric_list": [{"metric": "exact_match"}],
}
TEXT = {
    "task": "tiny_text",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}
NAMES = [one["task"] for one in (CHOICE, REPLY, TEXT)]


def write_tasks(folder: Path) -> Path:
    """Task files, with their data, and the group "tiny" of all three."""
    rng = random.Random(0)

    def documents(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
        return [
            {"text": " ".join(rng.choices(WORDS, k=length)), "gold": index % 4, "word": rng.choice(WORDS)}
            for index, length in enumerate(lengths)
        ]

    for name, lengths in (("test", LENGTHS), ("train", (5,) * 12)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, documents(lengths))))
    files = {"data_files": {name: str(folder / f"{name}.jsonl") for name in ("test", "train")}}
    data = {"dataset_path": "json", "dataset_kwargs": files, "test_split": "test", "metadata": {"version": 1.0}}
    for task in (CHOICE, REPLY, TEXT):
        (folder / f"{task['task']}.yaml").write_text(json.dumps(task | data | {"tag": "tiny_tasks"}))  # JSON is YAML
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, and a chat template."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    made.chat_template = "{% for turn in messages %}w1 {{ turn.content }} w2 {% endfor %}"
    return made


def tiny_network() -> LlamaForCausalLM:
    """A random Llama whose weights are wide enough that far tokens change its choices."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()
