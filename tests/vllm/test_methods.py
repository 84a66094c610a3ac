"""What vLLM answers with the plug-in is what our transformers path answers, each prompt alone."""

import numpy as np
import pytest

import ropewalk
from ropewalk.grid import Grid
from ropewalk.methods import DPE
from ropewalk.models.loading import load_model
from tests.models.saved import tiny_tokenizer
from tests.vllm.engine import run
from tests.vllm.models import TARGET, difference, expected, load, prompts, setting

NEAR = 1e-4  # of log-probabilities, float32

# Three lengths at once, read in chunks of 64 tokens; the second round finds prefixes of the first in the cache.
ASKED = prompts(17, 150, 200)
CHUNKS = {"max_num_batched_tokens": 64, "max_num_seqs": 8}
CASES = {
    "dpe": ("dpe", {}),
    "self-extend": ("self-extend", {}),
    "string": ("string+yarn", {}),
    "dca": ("dca", {}),
    "rerope": ("rerope", {}),
    "joined": ("dpe+yarn:factor=2", {}),
    "yarn": ("yarn", {}),
    "unrotated": ("dpe", {"keys": "unrotated"}),
    "dynamic-ntk": ("dynamic-ntk", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_transformers(llama, name) -> None:
    method, entry = CASES[name]
    rounds = run(llama, [ASKED, ASKED], **CHUNKS, **setting(method=method, **entry))
    wanted = expected(llama, method, ASKED)
    for answers in rounds:
        for one, other in zip(answers, wanted, strict=True):
            assert difference(one, other) <= NEAR
    assert [answer.cached for answer in rounds[0]] == [0, 0, 0]
    assert all(answer.cached >= 64 for answer in rounds[1][1:])


def test_the_methods_differ_from_one_another_and_from_the_stock_model(llama) -> None:
    found = [expected(llama, method, ASKED[2:])[0].tokens for method in (None, "dpe", "self-extend", "dca", "yarn")]
    assert len({tuple(tokens) for tokens in found}) == len(found)


def test_compiled_engine_gives_the_same_answers(llama) -> None:
    (answers,) = run(llama, [ASKED], enforce_eager=False, **setting(method="dpe"))
    for one, other in zip(answers, expected(llama, "dpe", ASKED), strict=True):
        assert difference(one, other) <= NEAR


def test_two_ranks_share_a_saved_extension_whose_keys_differ_by_head(llama, tmp_path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (3, 4, 16)).astype(float)
    tiny_tokenizer().save_pretrained(llama)
    model, _ = load_model(str(llama))
    with ropewalk.extend(model, DPE(mask=Grid(mask)), target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    options = setting(folder=str(tmp_path / "saved")) | {"tensor_parallel_size": 2}
    (answers,) = run(llama, [ASKED], environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, **options)
    for one, other in zip(answers, expected(llama, DPE(mask=Grid(mask)), ASKED), strict=True):
        assert difference(one, other) <= NEAR


def test_without_a_setting_the_plug_in_changes_nothing(llama) -> None:
    asked = prompts(17, 30)
    (with_it,) = run(llama, [asked])
    (without,) = run(llama, [asked], environment={"VLLM_PLUGINS": ""})
    assert with_it == without
    for one, other in zip(with_it, expected(llama, None, asked), strict=True):
        assert difference(one, other) <= NEAR
    assert load(llama).config.max_position_embeddings == 64  # the prompts fit the window of the stock model
