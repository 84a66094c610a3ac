"""The oracle of CLEX against what is known without it: no network, and a network that is a constant."""

import math

import torch

from . import clex, frequencies

PAIRS = 8
THETA = torch.tensor(frequencies.plain(2 * PAIRS, 1e4))


def test_zero_network_is_dynamic_ntk_with_factor_two() -> None:
    nothing = torch.zeros(PAIRS, 4, dtype=torch.float64)
    for time in (1.0, 2.0, 3.5, 16.0):
        known = frequencies.dynamic_ntk(2 * PAIRS, 1e4, 2.0, 64, 64 * time)[0]
        torch.testing.assert_close(
            clex.frequencies(THETA, nothing, nothing.T, time), torch.tensor(known), rtol=1e-11, atol=0
        )


def test_saturated_network_moves_every_open_pair_in_proportion_to_time() -> None:
    """sigma = -1 for inputs far below 0, so that z gains -sum(W_down) (t - 1) over its NTK part."""
    up = torch.full((PAIRS, 3), 100.0, dtype=torch.float64)  # ln theta and nu are negative
    down = torch.full((3, PAIRS), 0.01, dtype=torch.float64)
    known = torch.tensor(frequencies.dynamic_ntk(2 * PAIRS, 1e4, 2.0, 64, 256)[0])
    slower = torch.full((PAIRS,), math.exp(-0.03 * 3), dtype=torch.float64)
    slower[2] = 1
    found = clex.frequencies(THETA, up, down, 4.0, closed=frozenset({2}))
    torch.testing.assert_close(found, known * slower, rtol=1e-9, atol=0)


def test_residual_network_that_is_a_constant_moves_every_open_pair_in_proportion_to_log_time() -> None:
    """Saturated: 1 in the first layer, and 1, 1, -1 added in the second."""
    up = torch.zeros(PAIRS, 3, dtype=torch.float64)
    clock = torch.tensor([[100.0] * 3, [0.0] * 3], dtype=torch.float64)
    middle = torch.diag(torch.tensor([100.0, 100.0, -100.0], dtype=torch.float64))  # hidden units 2, 2 and 0
    down = torch.full((3, PAIRS), -0.01, dtype=torch.float64)
    known = torch.tensor(frequencies.dynamic_ntk(2 * PAIRS, 1e4, 2.0, 64, 256)[0])
    slower = torch.full((PAIRS,), math.exp(-0.04 * math.log(7)), dtype=torch.float64)
    slower[5] = 1
    found = clex.frequencies(THETA, up, down, 4.0, closed=frozenset({5}), middle=middle, clock=clock)
    torch.testing.assert_close(found, known * slower, rtol=1e-9, atol=0)
