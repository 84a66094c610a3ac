"""Ways to run an engine: compiled, on two ranks, without a setting, one setting after another."""

import numpy as np
import pytest

import ropewalk
from ropewalk.grid import Grid
from ropewalk.methods import DPE
from ropewalk.models.loading import load_model
from tests.models.saved import tiny_tokenizer
from tests.vllm.engine import apart, ask, run
from tests.vllm.models import TARGET, expected, prompts, require_alike, setting

ASKED = prompts(17, 150, 200)


@pytest.mark.parametrize("method", ["dpe", "yarn"])
def test_compiled_engine_gives_the_same_answers(llama, method) -> None:
    (answers,) = run(llama, [ASKED], enforce_eager=False, **setting(method=method))
    require_alike(answers, expected(llama, method, ASKED))


def test_two_ranks_share_a_saved_extension_whose_keys_differ_by_head(llama, tmp_path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (3, 4, 16)).astype(float)
    assert (mask[:, :2] != mask[:, 2:]).any(), "each rank must need its own part"
    tiny_tokenizer().save_pretrained(llama)
    model, _ = load_model(str(llama))
    with ropewalk.extend(model, DPE(mask=Grid(mask)), target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    options = setting(folder=str(tmp_path / "saved")) | {"tensor_parallel_size": 2}
    (answers,) = run(llama, [ASKED], **options)
    require_alike(answers, expected(llama, DPE(mask=Grid(mask)), ASKED))


def test_without_a_setting_the_plug_in_changes_nothing(llama) -> None:
    asked = prompts(17, 30)  # within the trained window
    (with_it,) = run(llama, [asked])
    (without,) = run(llama, [asked], environment={"VLLM_PLUGINS": ""})
    assert with_it == without
    require_alike(with_it, expected(llama, None, asked))


def one_after_another(folder: str, *engines: dict) -> None:
    for options in engines:
        ask(folder, [prompts(5)], 2, options)


@pytest.mark.parametrize("first", [{}, {"method": "self-extend"}], ids=["stock", "self-extend"])
def test_a_process_has_one_setting(llama, first) -> None:
    options = setting(**first) if first else {}
    with pytest.raises(RuntimeError, match="runs no other; start the second engine in a process of its own"):
        apart(one_after_another, str(llama), options, setting(method="dpe"))


def test_pages_are_paid_for_as_large_as_they_are(llama) -> None:
    """Three layers, two key heads of 32 numbers, float32: 1.25 times what keys and values of the target take."""
    room = 5 * (2 * 3 * 2 * 32 * 4 * TARGET) // 4
    (answers,) = run(llama, [ASKED], **setting(method="dpe", keys="unrotated"), kv_cache_memory_bytes=room)
    require_alike(answers, expected(llama, "dpe", ASKED))
    with pytest.raises(RuntimeError, match="KV cache"):
        run(llama, [ASKED], **setting(method="dpe"), kv_cache_memory_bytes=room)
