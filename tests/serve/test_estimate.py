"""What a length needs, against counts made by hand and on models that were built."""

import pytest
import torch
from transformers import AutoConfig, DynamicCache

import ropewalk
from ropewalk.errors import ModelError
from ropewalk.methods import parse
from ropewalk.models.spec import spec_from_config
from ropewalk.serve.estimate import count_parameters, need
from tests.architectures import PRETRAINED_LENGTH, WORKS

FAMILIES = ("llama", "qwen3", "gemma2", "mixtral")


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_model(family) -> None:
    model = WORKS[family]()
    held = sum({parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}.values())
    assert need(model.config, 64, dtype=torch.float32).weights == held


@pytest.mark.parametrize("method", ["none", "self-extend:window=16,group=4", "string+yarn"])
def test_keys_and_values_are_what_a_cache_holds(method) -> None:
    model = WORKS["llama"]()
    length = 2 * PRETRAINED_LENGTH
    plan = parse(method).plan(spec_from_config(model.config), length)
    cache = DynamicCache(config=model.config)
    with ropewalk.extend(model, method, target_length=length), torch.no_grad():
        model(torch.ones(1, length, dtype=torch.long), past_key_values=cache)
    spec = spec_from_config(model.config)
    values = sum(layer.values.nbytes for layer in cache.layers)
    near = 16 if "window=16" in method else 0
    copies = values / length * near  # a second copy of the last keys
    assert need(model.config, length, dtype=torch.float32, plan=plan).cache == 2 * values + copies
    assert values == spec.num_layers * spec.num_kv_heads * spec.head_dim * length * 4


def test_a_layer_with_a_window_keeps_no_more_than_that() -> None:
    config, length = WORKS["gemma2"]().config, 10 * PRETRAINED_LENGTH
    kinds = spec_from_config(config).layer_kinds
    tokens = sum(config.sliding_window if kind == "sliding" else length for kind in kinds)
    config.sliding_window = 100 * length  # beyond the trained window, so that no layer has one
    whole = need(config, length, dtype=torch.float32).cache
    config.sliding_window = WORKS["gemma2"]().config.sliding_window
    assert need(config, length, dtype=torch.float32).cache / whole == pytest.approx(tokens / (length * len(kinds)))
    assert "sliding" in kinds and "full" in kinds


def test_experts_that_are_not_chosen_are_held_and_not_multiplied() -> None:
    model = WORKS["mixtral"]()
    used, held = count_parameters(model.config)
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    looked_up = model.get_input_embeddings().weight.numel()
    chosen = model.config.num_experts_per_tok / model.config.num_local_experts
    assert used == held - norms - looked_up - experts * (1 - chosen)


def test_operations_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, length = WORKS["llama"](), PRETRAINED_LENGTH
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, length, dtype=torch.long))
    config = model.config
    dense = 4.0 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * length**2
    causal = dense / 2 * (1 + 1 / length)  # torch's eager attention multiplies every pair
    assert need(config, length, dtype=torch.float32).operations - causal == counter.get_total_flops() - dense


def test_devices_share_heads_and_an_odd_number_is_refused() -> None:
    config = WORKS["llama"]().config
    whole, half = (need(config, 64, dtype=torch.float32, devices=devices) for devices in (1, 2))
    assert half.total == whole.total and half.each == -(-whole.each // 2)
    with pytest.raises(ModelError, match="do not divide among 3 devices; take 1, 2, 4"):
        need(config, 64, dtype=torch.float32, devices=3)


def test_key_heads_are_copied_where_there_are_more_devices() -> None:
    config = WORKS["llama"]().config
    one, four = (need(config, 64, dtype=torch.float32, devices=devices) for devices in (1, 4))
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert four.cache == 2 * one.cache and "each key head on 2 of them" in four.layout
    config.num_attention_heads, config.num_key_value_heads = 12, 4
    with pytest.raises(ModelError, match="12 query and 4 key heads do not divide among 6 devices; take 1, 2, 4, 12"):
        need(config, 64, dtype=torch.float32, devices=6)


def test_a_model_that_writes_no_text_is_refused() -> None:
    config = AutoConfig.for_model("nomic_bert")
    with pytest.raises(ModelError):
        need(config, 64, dtype=torch.float32)
