"""An exported GGUF that llama.cpp runs gives the logits of the extension; needs llama-cpp-python (`make llama-cpp`)."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import ropewalk
from ropewalk.models.export.gguf import export_gguf, spec_of
from tests.architectures import build
from tests.models.test_loading import VOCAB, save_gguf

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; run: make llama-cpp")
pytestmark = pytest.mark.slow

TARGET, F32 = 512, 0
TOKENS = torch.randint(0, len(VOCAB), (1, 200), generator=torch.Generator().manual_seed(5))


def tiny(family: str) -> PreTrainedModel:
    """Wide weights, so that a wrong rotation shows; the base that `save_gguf` writes."""
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    return build(
        family, vocab_size=len(VOCAB), max_position_embeddings=128, tie_word_embeddings=False, rope_parameters=rope
    )


def save_qwen(file: Path, model: PreTrainedModel) -> Path:
    """Write a Qwen2 as llama.cpp does: its names, heads as they are."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(list(VOCAB))
    writer.add_token_types([3, 3, *([1] * (len(VOCAB) - 2))])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(own, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


SAVE = {"llama": save_gguf, "qwen2": save_qwen}


def run(file: Path) -> torch.Tensor:
    """Logits of llama.cpp for every token, float32 [tokens, vocabulary], with a cache in float32."""
    options = {"n_ctx": TARGET, "n_batch": TARGET, "n_threads": 1, "type_k": F32, "type_v": F32}
    model = llama_cpp.Llama(str(file), logits_all=True, verbose=False, **options)
    model.eval(TOKENS[0].tolist())
    return torch.tensor(model.scores[: TOKENS.shape[1]].copy())


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).norm() / right.norm())


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", method)
        for method in ("pi", "yarn", "yarn-paper", "yarn-lambda:attention_factor=1.3", "llama3:factor=8")
    ]
    + [("qwen2", method) for method in ("pi", "ntk", "yarn", "yarn:factor=3,attention_factor=1.2")],
)
def test_llama_cpp_gives_the_logits_of_the_extension(tmp_path, family, method) -> None:
    model = tiny(family)
    source = SAVE[family](tmp_path / "tiny.gguf", model)
    spec = spec_of(source)
    with ropewalk.extend(model, method, target_length=TARGET) as extension, torch.no_grad():
        expected = model(TOKENS).logits[0]
        (one,) = export_gguf(source, tmp_path / "out", extension.method, spec, TARGET)
    assert distance(run(one.file), expected) < 1e-5
    assert distance(run(source), expected) > 0.5  # the file without the table is another model
