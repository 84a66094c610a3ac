"""The table of docs/serving.md is what `ropewalk estimate` says."""

from pathlib import Path

import torch
from transformers import LlamaConfig

from ropewalk.lengths import format_length, parse_length
from ropewalk.methods import parse
from ropewalk.models.spec import spec_from_config
from ropewalk.serve.estimate import GIB, need

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
SIZES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
HEAD = (
    "| model | length | weights | keys and values | with `dpe` in pages | each of 8 devices, `dpe` "
    "| operations to read | for each token after |\n|---|---|---|---|---|---|---|---|\n"
)


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
