"""`generate_batch` of an extended model gives the tokens of `generate`, one prompt at a time."""

from typing import Any

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

import ropewalk
from ropewalk.errors import MethodError, ModelError
from tests.architectures import WORKS, build
from tests.models.batches import POSITION_METHODS, TARGET, texts, whole

NEW = 9
LENGTHS = (71, 33, 90, 17, 52)
METHODS = {name: POSITION_METHODS[name] for name in ("self-extend", "dpe", "string", "dca")} | {"yarn": "yarn"}
# Few blocks and few tokens a step: prompts are cut, and texts come and go.
SMALL = ContinuousBatchingConfig(block_size=16, num_blocks=24, max_batch_tokens=64, allow_block_sharing=True)


def greedy() -> GenerationConfig:
    return GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)


def one_by_one(model: PreTrainedModel, prompts: list[list[int]]) -> list[list[int]]:
    settings: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return [model.generate(torch.tensor([p]), **settings)[0, len(p) :].tolist() for p in prompts]


def together(model: PreTrainedModel, prompts: list[list[int]], **how: Any) -> list[list[int]]:
    found = model.generate_batch(prompts, greedy(), SMALL, warmup=False, **how)
    assert [result.error for result in found.values()] == [None] * len(prompts)
    return [result.generated_tokens for result in found.values()]


def prompts_of(*lengths: int) -> list[list[int]]:
    rows = [row[0].tolist() for row in texts(*lengths)]
    return [*rows, rows[0][:40] + rows[1][:20]]  # it begins as the first one does


@pytest.mark.parametrize("method", METHODS)
def test_batch_gives_the_tokens_of_prompts_one_by_one(llama: PreTrainedModel, method: str) -> None:
    prompts = prompts_of(*LENGTHS)
    with ropewalk.extend(llama, METHODS[method], target_length=TARGET, verify=False) as extension:
        wanted = one_by_one(llama, prompts)
        assert together(llama, prompts) == wanted
        assert ("a paged cache" in extension.describe()) == (method != "yarn")
        assert one_by_one(llama, prompts[:1]) == wanted[:1]
    assert llama.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", ["gemma3_text", "qwen3", "gpt_oss"])
def test_batch_of_other_families(family: str) -> None:
    """Sliding layers with a group of blocks of their own, norms of heads, sinks."""
    model = WORKS[family]()
    prompts = prompts_of(*LENGTHS[:3])
    with ropewalk.extend(model, METHODS["dpe"], target_length=TARGET, verify=False):
        assert together(model, prompts) == one_by_one(model, prompts)


def test_stock_model_beside_an_extended_one(llama: PreTrainedModel) -> None:
    """The function that stands behind the name hands other models on."""
    other = build("llama", num_hidden_layers=1)
    prompts = prompts_of(*LENGTHS[:3])
    wanted = together(other, prompts)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False):
        together(llama, prompts)
        assert together(other, prompts) == wanted


@pytest.mark.parametrize("method", ["dynamic-ntk:factor=1.5", "self-extend:window=13+dynamic-ntk"])
def test_method_that_depends_on_the_length_wants_one_pin(llama: PreTrainedModel, method: str) -> None:
    prompts = prompts_of(71, 33)
    with ropewalk.extend(llama, method, target_length=TARGET, verify=False) as extension:
        with pytest.raises(MethodError, match=r"pin\(\[length\]\)"):
            together(llama, prompts)
        extension.pin([101])
        assert together(llama, prompts) == one_by_one(llama, prompts)


def test_text_beyond_the_reach_fails_with_the_reason(llama: PreTrainedModel) -> None:
    with ropewalk.extend(llama, METHODS["string"], target_length=TARGET, verify=False):
        found = llama.generate_batch([texts(140)[0][0].tolist()], greedy(), SMALL, warmup=False)
        assert ["tokens and was admitted for" in str(result.error) for result in found.values()] == [True]


def test_forwards_beside_a_manager_are_refused(llama: PreTrainedModel) -> None:
    (ids,) = texts(31)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False):
        wanted = whole(llama, ids)
        manager = llama.init_continuous_batching(greedy(), SMALL)
        manager.start()
        with pytest.raises(ModelError, match="stop its manager"):
            whole(llama, ids)
        manager.stop()
        assert torch.equal(whole(llama, ids), wanted)
