"""Rotations by complex numbers, and norms after the rotation: the paper's distances, the logits of the stock table."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

import ropewalk
from ropewalk.errors import BackendError
from tests.architectures import PRETRAINED_LENGTH, WORKS, build
from tests.models.batches import COMBINED, LENGTH, POSITION_METHODS, TARGET, padded, texts, whole
from tests.models.oracle_model import oracle_logits
from tests.models.test_effective_distances import CASES, shaped
from tests.models.test_generate import GREEDY, recomputed
from tests.models.test_graphs import compiled
from tests.models.test_paths import assert_paths_agree
from tests.oracles import distances as formulas

CLOSE = {"rtol": 0.0, "atol": 1e-4}
DPE = POSITION_METHODS["dpe"]
FAMILIES = ("deepseek_v2", "llama4_text", "llama4_text-no-norm", "hunyuan_v1_dense")
WEIGHTED = ("query_layernorm", "key_layernorm")


def family(name: str, **overrides: Any) -> PreTrainedModel:
    """A tiny model whose norms have weights that a rotation does not commute with."""
    sizes = {"num_key_value_heads": 4} if name == "deepseek_v2" else {}
    sizes |= {"use_qk_norm": False} if name.endswith("no-norm") else {}
    model = build(name.split("-")[0], **sizes, **overrides) if overrides else WORKS[name]()
    generator = torch.Generator().manual_seed(3)
    for path, weight in model.named_parameters():
        if path.split(".")[-2] in WEIGHTED:
            weight.data = 0.5 + torch.rand(weight.shape, generator=generator)
    return model


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_yarn_and_ours_give_the_same_logits(name: str) -> None:
    factor = TARGET / PRETRAINED_LENGTH
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor}
    stock = family(name, rope_parameters=rope | {"original_max_position_embeddings": PRETRAINED_LENGTH})
    model = family(name, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    (ids,) = texts(LENGTH)
    wanted, plain = whole(stock, ids), whole(model, ids)
    for backend in ("auto", "blockwise"):
        with ropewalk.extend(model, f"yarn:factor={factor}", target_length=TARGET, backend=backend):
            torch.testing.assert_close(whole(model, ids), wanted, **CLOSE)
    assert (wanted - plain).abs().max() > 0.1
    assert torch.equal(whole(model, ids), plain)


@pytest.mark.parametrize("method", ["dpe", "self-extend", "dca"])
@pytest.mark.parametrize("name", ["llama4_text", "llama4_text-no-norm", "deepseek_v2"])
def test_complex_rotary_sees_the_distances_of_the_paper(name: str, method: str) -> None:
    """The norm of Llama 4 has no weights: it is the same before and after a rotation."""
    model, (text, distance) = family(name), CASES[method]
    distances = shaped(distance(LENGTH))
    start = 16 if name == "deepseek_v2" else 0
    if start:
        text = text.replace("scales=1/2/3.5/4", "scales=1/3.5")
    if start and method == "dpe":
        distances = shaped(formulas.dpe(LENGTH, torch.tensor([1.0, 1.0, 3.5, 3.5]), 13))
    (ids,) = texts(LENGTH)
    wanted = oracle_logits(model, ids, distances, layout="interleaved", start=start, by_complex=True)
    with ropewalk.extend(model, text, target_length=TARGET):
        torch.testing.assert_close(whole(model, ids), wanted, **CLOSE)


def hunyuan_logits(model: PreTrainedModel, ids: Tensor, window: int, scales: Tensor) -> Tensor:
    """DPE with norms after the rotation, every pair of tokens written out in float64; scales are [pairs]."""
    length, pairs = ids.shape[1], len(scales)
    rotary: Any = model.model.rotary_emb
    theta = rotary.inv_freq.double()
    tokens = torch.arange(length, dtype=torch.float64)[:, None]
    offset = window - torch.floor(window / scales)
    remote = torch.floor(tokens / scales)
    local = tokens.expand(-1, pairs)

    def turned(x: Tensor, positions: Tensor) -> Tensor:
        angles = positions * theta
        first, second = x[..., :pairs], x[..., pairs:]
        return torch.cat(
            (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), -1
        )

    def weighed(x: Tensor, norm: Any) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight.double()

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float, **ignored: Any
    ) -> tuple[Tensor, None]:
        repeats = query.shape[1] // key.shape[1]
        q, k, v = (
            query.double(),
            key.double().repeat_interleave(repeats, 1),
            value.double().repeat_interleave(repeats, 1),
        )
        scores = []
        for of_query, of_key in ((local, local), (remote + offset, remote)):
            a = weighed(turned(q, of_query), module.query_layernorm)
            b = weighed(turned(k, of_key), module.key_layernorm)
            scores.append(a @ b.mT * scaling)
        distance = torch.arange(length)[:, None] - torch.arange(length)
        logits = torch.where(distance < window, *scores).masked_fill(distance < 0, -torch.inf)
        return (logits.softmax(-1) @ v).to(query).transpose(1, 2).contiguous(), None

    norms = [
        norm
        for layer in model.model.layers
        for norm in (layer.self_attn.query_layernorm, layer.self_attn.key_layernorm)
    ]
    AttentionInterface.register("ropewalk-test-norms", attention)
    implementation = model.config._attn_implementation
    try:
        for norm in norms:
            norm.forward = lambda x: x
        rotary.forward = lambda x, position_ids: (torch.ones(1, length, 2 * pairs), torch.zeros(1, length, 2 * pairs))
        model.set_attn_implementation("ropewalk-test-norms")
        with torch.no_grad():
            return model(ids, use_cache=False).logits
    finally:
        for module in (*norms, rotary):
            del module.forward
        model.set_attn_implementation(implementation)


def test_norms_follow_the_rotation_of_each_band() -> None:
    model = family("hunyuan_v1_dense")
    (ids,) = texts(LENGTH)
    scales = torch.tensor([1.0, 2.0, 3.5, 4.0], dtype=torch.float64).repeat_interleave(2)
    wanted = hunyuan_logits(model, ids, 13, scales)
    with ropewalk.extend(model, DPE, target_length=TARGET):
        torch.testing.assert_close(whole(model, ids), wanted, **CLOSE)


@pytest.mark.parametrize("method", [DPE, COMBINED["dpe+yarn"], "dca:chunk=37,window=7", "yarn"])
@pytest.mark.parametrize("name", FAMILIES)
def test_paths_agree(name: str, method: str) -> None:
    if name == "deepseek_v2":
        method = method.replace("1/2/3.5/4", "1/3.5").replace("1/1/1.5/3", "1/3")
    # HunYuan's own attention sees the positions themselves, and with them the padding of a row without position ids.
    backend = "blockwise" if (name, method) == ("hunyuan_v1_dense", "yarn") else "auto"
    assert_paths_agree(family(name), method, backend, first=97)


def test_keys_under_late_norms_stay_unrotated_and_are_named() -> None:
    model = family("hunyuan_v1_dense")
    rows = texts(71, 52)
    ids, mask = padded(rows, "left")
    with ropewalk.extend(model, DPE, target_length=TARGET, verify=False) as extension:
        assert "cache: un-rotated keys, rotated anew at every step" in extension.describe()
        found = model.generate(ids, attention_mask=mask, **GREEDY)[:, 71:]
        for got, row in zip(found, rows, strict=True):
            assert torch.equal(got, recomputed(model, row))
        assert "normalises keys after it rotated them" in extension.describe()
        assert "attention is dense" in extension.describe()


def test_gradients_reach_the_weights_of_late_norms() -> None:
    model = family("hunyuan_v1_dense")
    (ids,) = texts(61)
    found = []
    for extended in (False, True):
        model.zero_grad()
        if extended:
            with ropewalk.extend(model, "none", target_length=TARGET, backend="blockwise"):
                model(ids, labels=ids, use_cache=False).loss.backward()
        else:
            model(ids, labels=ids, use_cache=False).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        size = float(gradient.abs().max())
        assert size > 0
        torch.testing.assert_close(
            found[1][name], gradient, rtol=0, atol=2e-5 * size, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", ["deepseek_v2", "hunyuan_v1_dense"])
def test_prefill_in_one_graph(name: str) -> None:
    model = family(name)
    (ids,) = texts(71)
    for method in ("self-extend:group=3,window=13", "yarn"):
        with ropewalk.extend(model, method, target_length=TARGET, verify=False), torch.no_grad():
            torch.testing.assert_close(compiled(model)(ids, use_cache=False).logits, whole(model, ids), **CLOSE)
        torch._dynamo.reset()


def test_late_norms_take_no_gradients_in_a_graph() -> None:
    model = family("hunyuan_v1_dense")
    (ids,) = texts(31)
    with (
        ropewalk.extend(model, DPE, target_length=TARGET, verify=False),
        pytest.raises((BackendError, torch._dynamo.exc.TorchDynamoException), match="no gradients under torch"),
    ):
        compiled(model)(ids, use_cache=False)
