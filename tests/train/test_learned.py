"""A model with the network of CLEX in it: the logits of the method at inference, gradients, and nothing left behind."""

import math

import numpy as np
import pytest
import torch

import ropewalk
from ropewalk.errors import ModelError, TrainingError
from ropewalk.methods import CLEX
from ropewalk.train.learned import Learned, require_table
from tests.architectures import PRETRAINED_LENGTH, WORKS, build
from tests.models.batches import padded, texts, whole

LENGTH = 2 * PRETRAINED_LENGTH
OPEN = CLEX(gate=math.inf)
FAMILIES = ("llama", "qwen2", "mistral", "gpt_neox", "phi", "gemma")
COMPLEX = ("llama4_text", "deepseek_v2")  # rotate by a product of complex numbers


def moved(learned: Learned, size: float = 0.01) -> None:
    torch.manual_seed(0)
    torch.nn.init.normal_(learned.network.down, std=size)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES + COMPLEX)
def test_logits_in_training_are_those_of_the_method_at_inference(family) -> None:
    model = WORKS[family]() if family in WORKS else build(family)
    (ids,) = texts(LENGTH)
    with Learned(model, OPEN) as learned:
        moved(learned)
        learned.time = times(2.0)
        trained = whole(model, ids)
        learned.time = times(1.0)
        short = whole(model, ids[:, :PRETRAINED_LENGTH])
        method = learned.network.method()
    with ropewalk.extend(model, method, target_length=LENGTH):
        torch.testing.assert_close(trained, whole(model, ids), rtol=0, atol=2e-4)
    assert (trained - whole(model, ids)).abs().max() > 1e-2
    torch.testing.assert_close(short, whole(model, ids[:, :PRETRAINED_LENGTH]), rtol=0, atol=2e-4)


def test_rows_of_a_batch_have_tables_of_their_own() -> None:
    model = build("llama")
    rows = texts(90, 60)
    ids, mask = padded(rows, "right")
    with Learned(model, OPEN) as learned:
        moved(learned)
        learned.time = times(3.5, 1.0)
        together = whole(model, ids, attention_mask=mask)
        for row, (text, time) in enumerate(zip(rows, (3.5, 1.0), strict=True)):
            learned.time = times(time)
            torch.testing.assert_close(together[row, : text.shape[1]], whole(model, text)[0], rtol=0, atol=1e-4)


def test_loss_reaches_the_network_and_the_model() -> None:
    model = build("llama").train()
    (ids,) = texts(60)
    with Learned(model, OPEN) as learned:
        moved(learned)
        learned.time = times(4.0)
        found = model(ids, labels=ids, position_ids=torch.arange(60)[None] * 4, attention_mask=torch.ones_like(ids))
        found.loss.backward()
        for one in (learned.network.up, learned.network.down, *model.parameters()):
            assert one.grad is not None and float(one.grad.abs().max()) > 0
        assert {"model.rotary_emb.clex.up", "model.rotary_emb.clex.down"} <= set(model.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_step_of_training_moves_the_network_and_the_model_of_every_family(family) -> None:
    """Small steps against the gradient, of the network alone and of the model alone, each lower the loss."""
    model = (WORKS[family]() if family in WORKS else build(family)).train()
    (ids,) = texts(40)
    inputs = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
    inputs["position_ids"] = torch.arange(40)[None] * 3.25
    with Learned(model, OPEN) as learned:
        moved(learned)
        learned.time = times(3.25)
        before = learned.network.method()
        network = list(learned.network.parameters())
        own = [one for one in model.parameters() if all(one is not other for other in network)]
        for weights, size in ((network, 1e-5), (own, 1e-3)):
            model.zero_grad()
            loss = model(**inputs).loss
            loss.backward()
            length = float(torch.stack([one.grad.norm() for one in weights]).norm())
            with torch.no_grad():
                for one in weights:
                    one -= size / length * one.grad
                assert float(model(**inputs).loss) < float(loss)
        after = learned.network.method()
        tables = [method.plan(learned.spec, LENGTH).table for method in (before, after)]
    assert tables[0] != tables[1]


def test_gradient_of_a_weight_is_that_of_a_difference() -> None:
    """In float64, along one random direction of W_down, through attention."""
    model = build("llama").double()
    (ids,) = texts(40)
    with Learned(model, OPEN) as learned:
        moved(learned)
        learned.network.double()
        learned.time = times(3.0)
        inputs = {"position_ids": torch.arange(40)[None] * 3, "attention_mask": torch.ones_like(ids), "labels": ids}
        model(ids, **inputs).loss.backward()
        direction = torch.randn_like(learned.network.down)
        slope = float((learned.network.down.grad * direction).sum())
        losses = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                learned.network.down += step * direction
                losses.append(float(model(ids, **inputs).loss))
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-3)


def test_leaving_restores_the_stock_model() -> None:
    model = build("llama")
    (ids,) = texts(50)
    before, names = whole(model, ids), set(model.state_dict())
    with pytest.raises(ZeroDivisionError), Learned(model, OPEN):
        raise ZeroDivisionError
    assert torch.equal(whole(model, ids), before)
    assert set(model.state_dict()) == names


def test_forward_without_length_factors_is_refused() -> None:
    model = build("llama")
    (ids,) = texts(20)
    with Learned(model, OPEN) as learned:
        for given in (None, times(1.0, 2.0)):
            learned.time = given
            with pytest.raises(TrainingError, match="a batch of 1 rows came without their length factors"):
                whole(model, ids)


def test_models_that_cannot_train_it_are_refused() -> None:
    model = build("llama")
    with ropewalk.extend(model, "yarn", target_length=100), pytest.raises(ModelError, match="extended with yarn"):
        Learned(model, OPEN)
    with pytest.raises(ModelError, match="layers with a window share the rotary module"):
        Learned(WORKS["qwen2-window"](), OPEN)


@pytest.mark.parametrize(
    ("pair", "value", "message"),
    [(2, math.nan, "pair 2 at t = 4 is not finite"), (3, 0.9, "pair 3 at t = 4 is faster than the pair before it")],
)
def test_table_that_is_wrong_is_refused_with_step_pair_and_time(pair, value, message) -> None:
    theta = torch.tensor(np.geomspace(1, 1e-3, 8))[None].repeat(2, 1)
    require_table(theta, times(1.0, 4.0), 7)
    theta[1, pair] = value
    with pytest.raises(TrainingError, match=f"step 7: the frequency of {message}"):
        require_table(theta, times(1.0, 4.0), 7)
