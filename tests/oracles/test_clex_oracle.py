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
