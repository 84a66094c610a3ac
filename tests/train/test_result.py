"""The folder of a run is loaded by `from_pretrained`, by `extend`, and, exported, by plain transformers."""

from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import ropewalk
from ropewalk.methods import parse
from ropewalk.models.export.hf import export_hf
from ropewalk.train.run import train
from ropewalk.train.samplers import PoSE
from tests.models.batches import whole
from tests.train.test_run import SETTINGS, documents
from tests.train.words import words


def test_merged_result_is_one_model_in_every_way_to_load_it(tmp_path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                    max_position_embeddings=64, initializer_range=0.2)
    )  # fmt: skip
    sampler = PoSE(target_length=256)
    settings = replace(SETTINGS, method="pi", positions=str(sampler), lora=4, rate=1e-2)
    result = train(model, parse("pi"), sampler, documents(), settings, tmp_path / "out")
    tokenizer = words(" ".join(f"w{number}" for number in range(97)))
    tokenizer.save_pretrained(tmp_path / "out")
    ids = torch.randint(3, 99, (1, 150), generator=torch.Generator().manual_seed(0))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    stock = whole(loaded, ids)
    with ropewalk.extend(loaded, result.method) as extension:
        wanted = whole(loaded, ids)
        assert extension.target_length == 256
        (exported,) = export_hf(extension, tmp_path / "plain", tokenizer)
    assert (wanted - stock).abs().max() > 1e-2
    restored, _, attached = ropewalk.from_pretrained(tmp_path / "out" / "extension")
    assert attached.target_length == 256
    for one in (restored, AutoModelForCausalLM.from_pretrained(exported.folder)):
        torch.testing.assert_close(whole(one, ids), wanted, rtol=0, atol=1e-4)
