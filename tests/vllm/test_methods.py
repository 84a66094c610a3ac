"""What vLLM answers with the plug-in is what our transformers path answers, each prompt alone."""

import numpy as np
import pytest

from ropewalk.methods import METHODS
from tests.vllm.engine import run
from tests.vllm.models import PRETRAINED, SIZES, TARGET, expected, prompts, require_alike, setting

# Three lengths at once, read in chunks of 64 tokens; the second round finds prefixes of the first in the cache.
ASKED = prompts(17, 150, 200)
CHUNKS = {"max_num_batched_tokens": 64, "max_num_seqs": 8}
LONG = "/".join(f"{factor:.3f}" for factor in np.linspace(1, TARGET / PRETRAINED, SIZES["head_dim"] // 2))
GIVEN = {  # what a method cannot choose for itself
    "string": "string+yarn",
    "longrope": f"longrope:long={LONG}",
}
MORE = {
    "joined": "dpe+yarn:factor=2",
    "query scale": "rerope:log_n=true",
    "query scale of a table": "yarn:log_n=true,logit_scale=1.1",
    "kept start": f"longrope:long={LONG},retain=4",
}
CASES = {name: GIVEN.get(name, name) for name in METHODS} | MORE


def test_methods_are_those_that_are_registered() -> None:
    assert set(GIVEN) <= set(METHODS)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_transformers(llama, name) -> None:
    require_answers(llama, CASES[name])


@pytest.mark.parametrize("method", ["dpe", "dca"])
def test_unrotated_keys_give_the_same_answers(llama, method) -> None:
    require_answers(llama, method, keys="unrotated")


def require_answers(folder, method: str, **entry) -> None:
    """Chunks, other requests, decoding and a filled prefix cache leave each answer as it is alone."""
    first, second = run(folder, [ASKED, ASKED], **CHUNKS, **setting(method=method, **entry))
    wanted = expected(folder, method, ASKED)
    require_alike(first, wanted)
    require_alike(second, wanted)
    assert [answer.cached for answer in first] == [0, 0, 0]
    assert all(answer.cached >= 64 for answer in second[1:])


def test_the_methods_differ_from_one_another_and_from_the_stock_model(llama) -> None:
    methods = (None, "dpe", "self-extend", "dca", "yarn", "pi", CASES["longrope"])
    found = [expected(llama, method, ASKED[2:])[0].tokens for method in methods]
    assert len({tuple(tokens) for tokens in found}) == len(found)
