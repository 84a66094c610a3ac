"""Key dimensions: the streamed norms are those of the model's own queries and keys; top-k per head, key head, layer."""

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

import ropewalk.calibrate.norms as norms_module
from ropewalk.calibrate.heatmap import draw_norms
from ropewalk.calibrate.keys import key_texts, select_keys
from ropewalk.calibrate.norms import pair_norms, prefix_lengths
from ropewalk.errors import EvaluationError, ModelError
from ropewalk.models.huggingface import read_spec
from tests.architectures import WORKS


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def projected(model, ids):
    """|q_i| |k_i| of every token, [layers, H, T, P], from the projections of the stock model."""
    seen = {}
    hooks = []
    for index, layer in enumerate(model.model.layers):
        for name in ("q_proj", "k_proj"):
            module = getattr(layer.self_attn, name)
            hooks.append(module.register_forward_hook(lambda _m, _i, out, at=(index, name): seen.update({at: out[0]})))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    layers = []
    for index in range(len(model.model.layers)):
        q, k = (seen[index, name].view(len(ids), -1, 8).transpose(0, 1) for name in ("q_proj", "k_proj"))
        q, k = (torch.sqrt(x[..., :4] ** 2 + x[..., 4:] ** 2) for x in (q, k))
        layers.append(torch.stack([q[head] * k[head // 3] for head in range(6)]))
    return torch.stack(layers).double().numpy()


def test_streamed_norms_are_the_means_over_prefixes_and_documents(llama, monkeypatch):
    monkeypatch.setattr(norms_module, "CHUNK", 7)  # so that a document is read in pieces, the last one shorter
    documents = [torch.randint(50, (40,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(3)]
    found = pair_norms(llama, documents, lengths=(10, 20, 40))
    wanted = np.mean(
        [[projected(llama, ids)[:, :, :length].mean(2) for length in (10, 20, 40)] for ids in documents], axis=(0, 1)
    )
    assert found.shape == (2, 6, 4)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert llama(input_ids=torch.tensor([documents[0]])).logits.isfinite().all()  # the seam is gone


def test_partly_rotated_heads_have_the_norms_of_their_pairs_alone():
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        rotary_pct=0.25,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = GPTNeoXForCausalLM(config).eval()
    ids = list(range(20))
    seen = []
    hook = model.gpt_neox.layers[0].attention.query_key_value.register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    hook.remove()
    q, k, _ = seen[0][0].view(20, 2, 48).transpose(0, 1).chunk(3, -1)  # [H, T, 16]
    wanted = (q[..., :4].view(2, 20, 2, 2).norm(dim=2) * k[..., :4].view(2, 20, 2, 2).norm(dim=2)).mean(1)
    np.testing.assert_allclose(pair_norms(model, [ids])[0], wanted.numpy(), rtol=1e-5)


def test_prefixes_double_up_to_the_window():
    assert prefix_lengths(8192) == (2048, 4096, 8192)
    assert prefix_lengths(4095) == (4095,)
    assert prefix_lengths(64) == (64,)


@pytest.mark.parametrize("share", ["head", "kv", "layer"])
def test_keys_are_the_largest_sums_of_those_that_share_them(share):
    norms = np.random.default_rng(0).random((3, 6, 8))
    mask = select_keys(norms, top_k=3, share=share, num_kv_heads=2)
    members = {"head": 1, "kv": 3, "layer": 6}[share]
    assert mask.shape == (3, 1 if share == "layer" else 6, 8) and mask.sum(-1).min() == mask.sum(-1).max() == 3
    for layer in range(3):
        for head in range(6):
            first = head // members * members
            sums = norms[layer, first : first + members].sum(0)
            row = mask[layer, min(head, mask.shape[1] - 1)]
            assert sums[row].min() >= sums[~row].max()


def test_texts_of_key_dimensions_differ_and_come_again(tokenizer):
    texts = key_texts(tokenizer, 70, documents=3, seed=1, corpus="sotu")
    assert [len(ids) for ids in texts] == [70] * 3 and len({tuple(ids) for ids in texts}) == 3
    assert key_texts(tokenizer, 70, documents=3, seed=1, corpus="sotu") == texts
    assert key_texts(tokenizer, 70, documents=3, seed=2, corpus="sotu") != texts


def test_heat_map_is_drawn(llama, tmp_path):
    norms = pair_norms(llama, [list(range(30))])
    mask = select_keys(norms, top_k=2, share="head", num_kv_heads=2)
    draw_norms(norms, mask, read_spec(llama), tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_what_cannot_be_is_refused(llama):
    with pytest.raises(EvaluationError, match="give longer text"):
        pair_norms(llama, [[1, 2, 3]], lengths=(4,))
    with pytest.raises(EvaluationError, match="one or more"):
        pair_norms(llama, [])
    with pytest.raises(ModelError, match="norms queries and keys after rotating them"):
        pair_norms(WORKS["hunyuan_v1_dense"](), [[1, 2, 3]])
    with pytest.raises(EvaluationError, match="between 1 and 4"):
        select_keys(np.ones((1, 2, 4)), top_k=5, share="head", num_kv_heads=1)
    with pytest.raises(EvaluationError, match="one of head, kv, layer"):
        select_keys(np.ones((1, 2, 4)), top_k=2, share="all", num_kv_heads=1)
