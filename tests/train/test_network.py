"""The table that is trained through is the table that is baked, and its gradients are those of torchdiffeq."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ropewalk.errors import MethodError, ModelError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX
from ropewalk.methods.dynamics import NETWORKS
from ropewalk.train.network import Network
from tests.contract.cases import make_spec
from tests.oracles import clex, frequencies

SPEC = make_spec(head_dim=32, base=5e5, pretrained_length=64)
TIMES = (1.0, 1.75, 4.0, 16.0)  # exact in float32


def trained(size: float = 0.02, **fields) -> Network:
    """A network whose W_down is no longer zero."""
    network = Network(CLEX(**fields), SPEC, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    torch.nn.init.normal_(network.down, std=size)
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_untrained_network_is_dynamic_ntk_at_every_time(kind) -> None:
    network = Network(CLEX(network=kind), SPEC)
    for time, theta in zip(TIMES, network(torch.tensor(TIMES)), strict=True):
        known = frequencies.dynamic_ntk(SPEC.rotary_dim, SPEC.base, 2.0, 64, 64 * time)[0]
        assert_allclose(theta.detach().numpy(), known, rtol=1e-12)


@pytest.mark.parametrize("amplification", [1, 3])
def test_network_starts_as_that_of_the_authors(amplification) -> None:
    network = Network(CLEX(), SPEC, amplification=amplification, generator=torch.Generator().manual_seed(0))
    width = amplification * SPEC.rotary_dim
    assert (network.up.shape, network.down.shape) == ((SPEC.pairs, width), (width, SPEC.pairs))
    reference = torch.nn.init.kaiming_uniform_(torch.empty(SPEC.pairs, width), a=math.sqrt(5))
    assert not network.down.any()
    for one in (network.up, reference):
        assert 0.9 / math.sqrt(width) < float(one.detach().abs().max()) <= 1 / math.sqrt(width)
    assert float(network.up.detach().std()) == pytest.approx(float(reference.std()), rel=0.15)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("activation", ["tanh", "silu"])
@pytest.mark.parametrize("gate", [3.0, math.inf])
def test_trained_table_is_the_baked_one(kind, activation, gate) -> None:
    network = trained(size=0.005, network=kind, activation=activation, gate=gate, whole=False)
    for time, theta in zip((1.5, 4.0, 16.0), network(torch.tensor([1.5, 4.0, 16.0])), strict=True):
        baked = network.method().plan(SPEC, round(64 * time)).table.inv_freq.array[0, 0]
        assert_allclose(theta.detach().numpy(), baked, rtol=2e-4)


def test_row_at_the_trained_window_has_the_models_own_frequencies() -> None:
    assert (trained()(torch.tensor([1.0, 4.0]))[0].detach().numpy() == np.array(SPEC.inv_freq)).all()


def test_rows_do_not_know_their_neighbours() -> None:
    network = trained()
    together = network(torch.tensor(TIMES))
    for time, theta in zip(TIMES, together, strict=True):
        torch.testing.assert_close(network(torch.tensor([time]))[0], theta, rtol=1e-13, atol=0)


@pytest.mark.parametrize("time", [1.5, 4.0])
def test_form_of_the_authors_walks_the_same_trajectory(time) -> None:
    network = trained(gate=math.inf, feature_base=10000.0)
    in_log_time = network(torch.tensor([time]))
    network.form = "authors"
    torch.testing.assert_close(network(torch.tensor([time])), in_log_time, rtol=2e-5, atol=0)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("form", ["log", "authors"])
def test_gradients_are_those_of_torchdiffeq(form, kind) -> None:
    network = trained(network=kind, gate=math.inf, feature_base=10000.0)
    network.form = form
    pull = torch.linspace(-1, 1, SPEC.pairs, dtype=torch.float64)
    (network(torch.tensor([3.0])).log() @ pull).backward()
    weights = {name: one.detach().double().requires_grad_() for name, one in network.named_parameters()}
    theta = torch.tensor(SPEC.inv_freq, dtype=torch.float64)
    (clex.frequencies(theta, time=3.0, **weights, solver="rk4", step=0.05).log() @ pull).backward()
    for ours, theirs in zip(network.parameters(), weights.values(), strict=True):
        size = float(theirs.grad.abs().max())
        assert size > 0
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0, atol=1e-3 * size)


def test_closed_pairs_get_no_gradient_and_give_none() -> None:
    network = trained(gate=3.0)
    fast = SPEC.pretrained_length * np.array(SPEC.inv_freq) / (2 * math.pi) >= 3
    theta = network(torch.tensor([4.0]))[0]
    theta[torch.tensor(fast)].sum().backward(retain_graph=True)
    assert not network.down.grad.any() and not network.up.grad.any()
    theta.sum().backward()
    assert not network.down.grad[:, torch.tensor(fast)].any()
    assert (network.down.grad[:, torch.tensor(~fast)].abs().max(0).values > 0).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_method_of_a_network_starts_the_next_one(kind) -> None:
    first = trained(activation="silu", network=kind)
    second = Network(first.method(), SPEC)
    assert set(first.method().weights) == set(NETWORKS[kind]) == {name for name, _ in second.named_parameters()}
    assert torch.equal(second.up, first.up) and second.method() == first.method()
    torch.testing.assert_close(second(torch.tensor(TIMES)), first(torch.tensor(TIMES)), rtol=0, atol=0)


def test_step_of_training_makes_another_method() -> None:
    network = trained()
    before = network.method()
    table = before.plan(SPEC, 256).table
    with torch.no_grad():
        network.down += 1e-3
    assert network.method() != before
    assert network.method().plan(SPEC, 256).table != table == before.plan(SPEC, 256).table


def test_weights_in_half_precision_and_no_amplification_are_refused() -> None:
    with pytest.raises(ModelError, match=r"the network of CLEX is in torch\.bfloat16; .*autocast"):
        trained().to(torch.bfloat16)(torch.tensor([2.0]))
    with pytest.raises(MethodError, match="amplification must be at least 1, got 0"):
        Network(CLEX(), SPEC, amplification=0)
    with pytest.raises(MethodError, match="does not fit the model's 16 rotary pairs"):
        Network(CLEX(up=Grid(np.zeros((8, 2))), down=Grid(np.zeros((2, 8)))), SPEC)
