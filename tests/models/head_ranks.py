"""What the processes of tests/models/test_parallel_heads.py do: a tensor-parallel model of transformers, extended."""

import datetime
import os
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig

import ropewalk
from ropewalk.grid import Grid
from ropewalk.methods import DPE, Method
from ropewalk.rotary import RotarySpec
from tests.architectures import VOCABULARY, build
from tests.models.saved import TARGET, logits

RANKS = 2
FAMILIES = ("llama", "qwen3")
METHODS = ("none", "self-extend", "string+yarn:factor=4", "yarn", "dynamic-ntk", "dpe by head")


def build_even(family: str) -> PreTrainedModel:
    """A tiny model whose vocabulary divides too, as transformers 5.19 wants it."""
    return build(family, vocab_size=VOCABULARY + 1)


def method_of(name: str, spec: RotarySpec) -> str | Method:
    """A method; "dpe by head" scales other pairs in every head of every layer."""
    if name != "dpe by head":
        return name
    mask = np.random.default_rng(0).integers(0, 2, (spec.num_layers, spec.num_heads, spec.pairs))
    return DPE(mask=Grid(mask))


def extended_logits(model: PreTrainedModel, name: str, spec: RotarySpec) -> Tensor:
    with ropewalk.extend(model, method_of(name, spec), target_length=TARGET) as extension:
        assert extension.spec == spec
        return logits(model)


def work(rank: int, folder: Path, specs: dict[str, RotarySpec]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    rendezvous = f"file://{folder / 'rendezvous'}"
    patience = datetime.timedelta(seconds=120)  # for a process that failed alone
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS, timeout=patience)
    found: dict[str, Tensor] = {}
    for family in FAMILIES:
        split = DistributedConfig(tp_plan="auto", tp_size=RANKS)
        model = AutoModelForCausalLM.from_pretrained(folder / family, distributed_config=split)
        found[f"{family} stock"] = logits(model)
        for name in METHODS:
            found[f"{family} {name}"] = extended_logits(model, name, specs[family])
    safetensors.torch.save_file({name: one.contiguous() for name, one in found.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()
