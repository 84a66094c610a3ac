import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.fingerprint import model_sha256, plan_sha256, prompt_sha256, tokenizer_sha256
from ropewalk.methods import parse
from ropewalk.models.spec import spec_from_config


def test_model_fingerprint_survives_saving_and_an_extension(model, tmp_path):
    before = model_sha256(model)
    model.save_pretrained(tmp_path)
    assert model_sha256(AutoModelForCausalLM.from_pretrained(tmp_path)) == before
    for method in ("self-extend", "yarn"):
        with ropewalk.extend(model, method, target_length=2048):
            assert model_sha256(model) == before
    assert model_sha256(model) == before


def test_model_fingerprint_sees_weights_config_and_number_type(model):
    seen = {model_sha256(model)}
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight.mul_(1 + 1e-6)
    seen.add(model_sha256(tuned))
    stretched = copy.deepcopy(model)
    stretched.config.max_position_embeddings *= 2
    seen.add(model_sha256(stretched))
    seen.add(model_sha256(copy.deepcopy(model).to(torch.bfloat16)))
    assert len(seen) == 4


def test_model_without_weights_has_no_fingerprint(model):
    with torch.device("meta"):
        hollow = type(model)(model.config)
    with pytest.raises(EvaluationError, match="is not in memory"):
        model_sha256(hollow)


def test_odd_weights_have_a_fingerprint(model):
    model.register_buffer("scalar", torch.tensor(3.0))
    model.register_buffer("empty", torch.zeros(0, 4))
    model.register_buffer("turned", torch.arange(12.0).reshape(3, 4).T)
    before = model_sha256(model)
    model.scalar += 1
    assert model_sha256(model) != before


def test_tokenizer_fingerprint_is_that_of_its_form(tokenizer, tmp_path):
    before = tokenizer_sha256(tokenizer)
    tokenizer("some text", truncation=True, max_length=4)
    assert tokenizer_sha256(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_sha256(type(tokenizer).from_pretrained(tmp_path)) == before
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["zyzzyva"])
    templated = copy.deepcopy(tokenizer)
    templated.chat_template = "{{ messages }}"
    assert len({before, tokenizer_sha256(other), tokenizer_sha256(templated)}) == 3


def test_plan_and_prompt_hashes_differ_with_what_they_hash(model):
    spec = spec_from_config(model.config)

    def plan(text):
        return parse(text).resolve(spec, 2048).plan(spec, 2048)

    assert plan_sha256(plan("yarn")) == plan_sha256(plan("yarn"))
    assert len({plan_sha256(plan(text)) for text in ("none", "yarn", "self-extend", "self-extend:window=128")}) == 4
    assert prompt_sha256([1, 23]) == prompt_sha256((1, 23)) != prompt_sha256([12, 3])
