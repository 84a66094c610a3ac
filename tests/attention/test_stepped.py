"""Positions in steps from the first token of a tile are the positions of the map."""

import numpy as np
import pytest
import torch

from ropewalk.attention.stepped import TILE, Stepped, unsteady
from ropewalk.grid import Grid
from ropewalk.plan import PositionMap

THETA = torch.tensor([1.0, 0.3, 0.01, 1e-5], dtype=torch.float64)
MAPS = {
    "tokens": PositionMap(),
    "shifted": PositionMap(offset=Grid(-37)),
    "groups": PositionMap(Grid(4), Grid(100 - 100 // 4), floor=True),
    "own groups": PositionMap(Grid([1, 3, 7.5, 64]), Grid([0.0, 5, 5, 63]), floor=True),
    "fractions": PositionMap(Grid([1, 2.7, 3.3, 16]), Grid(0.4)),
    "one place": PositionMap(Grid(np.inf), Grid(12)),
    "one place or groups": PositionMap(Grid([1, np.inf, 9, np.inf]), Grid(3), floor=True),
    "one place in whole numbers": PositionMap(Grid(np.inf), Grid(12), floor=True),
}


def angles(stepped: Stepped) -> torch.Tensor:
    """Of every token, modulo a turn, [tokens, pairs]."""
    n = torch.arange(stepped.tokens)
    steps = (n % TILE)[:, None].expand(-1, len(THETA)) if stepped.steps is None else stepped.steps.long()
    base = torch.atan2(stepped.base_sin.double(), stepped.base_cos.double())[n // TILE]
    return base + torch.atan2(stepped.turn_sin.double(), stepped.turn_cos.double()).gather(0, steps)


@pytest.mark.parametrize("tokens", [TILE, 2**17])
@pytest.mark.parametrize("name", MAPS)
def test_base_and_step_are_the_position(name, tokens) -> None:
    expected = MAPS[name](torch.arange(tokens))[0] * THETA
    off = angles(Stepped.of(MAPS[name], THETA, 0, tokens)) - expected
    assert float((off - 2 * torch.pi * (off / (2 * torch.pi)).round()).abs().max()) < 3e-7


def test_maps_that_grow_evenly_need_no_steps() -> None:
    needless = {name for name, to in MAPS.items() if Stepped.of(to, THETA, 0, TILE).steps is None}
    assert needless == {"tokens", "shifted", "fractions", "one place", "one place in whole numbers"}


def test_layers_have_their_own_steps() -> None:
    to = PositionMap(Grid([[[2.0]], [[5.0]]]), floor=True)
    for layer, scale in enumerate((2, 5)):
        steps = Stepped.of(to, THETA, layer, 2 * TILE).steps
        assert steps is not None and int(steps[TILE - 1, 0]) == (TILE - 1) // scale


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        (PositionMap(modulus=9), "positions start anew"),
        (PositionMap(cap=9), "positions are capped"),
        (PositionMap(Grid(2), retained=4), "start tokens have positions of their own"),
        (PositionMap(Grid(2), Grid(7), floor=True), None),
    ],
)
def test_other_maps_are_named(to, reason) -> None:
    assert unsteady(to) == reason
