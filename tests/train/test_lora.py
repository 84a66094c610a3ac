"""Low-rank updates: they learn, resume, merge into a plain model, and are left out on failure."""

import sys
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.errors import TrainingError
from ropewalk.methods import parse
from ropewalk.train.run import train
from ropewalk.train.samplers import PoSE
from tests.architectures import build
from tests.models.batches import texts, whole
from tests.train.test_run import METHOD, SAMPLER, SETTINGS, Stop, documents, interrupt, weights

LORA = replace(SETTINGS, lora=4, rate=1e-2)
PI = parse("pi:factor=4")
POSE = PoSE(target_length=256)


def test_merged_updates_are_the_adapter_on_the_stock_model(tmp_path) -> None:
    model = build("llama")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    settings = replace(LORA, method=str(PI), positions=str(POSE), steps=12, lora_targets="q_proj, v_proj")
    result = train(model, PI, POSE, documents(), settings, tmp_path / "out")
    losses = list(result.losses.values())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    merged = weights(tmp_path / "out")
    assert set(merged) == set(before) and all(one.requires_grad for one in model.parameters())
    changed = {name for name, one in merged.items() if not torch.equal(one, before[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}
    loaded = peft.PeftModel.from_pretrained(build("llama"), str(tmp_path / "out" / "adapter"))
    (ids,) = texts(60)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    torch.testing.assert_close(whole(plain, ids), whole(loaded, ids), rtol=0, atol=1e-4)


def test_interrupted_run_goes_on_from_small_checkpoints_to_the_same_weights(tmp_path) -> None:
    train(build("llama"), METHOD, SAMPLER, documents(), LORA, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(build("llama"), METHOD, SAMPLER, documents(), LORA, tmp_path / "b", callbacks=[Stop(5, interrupt)])
    checkpoint = tmp_path / "b" / "checkpoints" / "checkpoint-4"
    assert not (checkpoint / "model.safetensors").exists() and (checkpoint / "trained.safetensors").exists()
    train(build("llama"), METHOD, SAMPLER, documents(), LORA, tmp_path / "b", resume=True)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "clex.safetensors").read_bytes() == (tmp_path / "b" / "clex.safetensors").read_bytes()


def test_model_is_as_it_was_after_a_run_that_failed(tmp_path) -> None:
    model = build("llama")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        train(model, METHOD, SAMPLER, documents(), LORA, tmp_path / "out", callbacks=[Stop(2, interrupt)])
    after = model.state_dict()
    assert set(after) == set(before) and all(torch.equal(one, before[name]) for name, one in after.items())
    assert all(one.requires_grad for one in model.parameters())
    ropewalk.extend(model, "pi:factor=2").remove()


def test_updates_that_cannot_be_are_refused(tmp_path, monkeypatch) -> None:
    with pytest.raises(TrainingError, match="take one of them"):
        replace(LORA, network_only=True)
    with pytest.raises(TrainingError, match="lora must be a rank"):
        replace(LORA, lora=-1)
    model = build("llama")
    with pytest.raises(TrainingError, match="no updates for lora_targets='nothing'"):
        train(model, METHOD, SAMPLER, documents(), replace(LORA, lora_targets="nothing"), tmp_path / "a")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TrainingError, match=r"pip install 'ropewalk\[train\]'"):
        train(model, METHOD, SAMPLER, documents(), LORA, tmp_path / "b")
