"""Model types that the plug-in accepts: each was run here against our transformers path."""

from typing import Any

import pytest

from ropewalk.serve.served import TESTED
from tests.vllm.engine import run
from tests.vllm.models import expected, prompts, require_alike, save_model, setting

WINDOW = 40  # tokens, within the trained length of 64
ALTERNATING = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
OVERRIDES: dict[str, dict[str, Any]] = {
    "gemma2": ALTERNATING | {"query_pre_attn_scalar": 32},  # soft caps too
    "gemma3_text": ALTERNATING | {"query_pre_attn_scalar": 32},  # two tables
    "glm4": {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}},  # half of the dimensions, interleaved
    "mistral": {"sliding_window": None},
    "phi3": {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}},
    "stablelm": {"rope_parameters": ROPE | {"partial_rotary_factor": 0.25}},
}


@pytest.mark.parametrize("family", TESTED)
def test_family_answers_as_in_transformers(family, tmp_path) -> None:
    folder = save_model(tmp_path / "model", family, **OVERRIDES.get(family, {}))
    asked = prompts(17, 150)
    (answers,) = run(folder, [asked], new=12, **setting(method="dpe"))
    require_alike(answers, expected(folder, "dpe", asked, 12))


def test_table_is_not_that_of_layers_with_a_window(tmp_path) -> None:
    """Gemma 2's share one rotary module with the others."""
    folder = save_model(tmp_path / "model", "gemma2", **OVERRIDES["gemma2"])
    asked = prompts(17, 150)
    (answers,) = run(folder, [asked], new=12, **setting(method="yarn"))
    require_alike(answers, expected(folder, "yarn", asked, 12))
