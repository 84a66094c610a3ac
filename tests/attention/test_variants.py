"""Maps per head as two maps and a mask: together they are the map that they stand for."""

import numpy as np
import pytest
import torch

from ropewalk.attention.variants import variants
from ropewalk.grid import Grid
from ropewalk.plan import PositionMap


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("floor", [True, False])
def test_two_maps_and_a_mask_are_the_map(layers, floor) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((layers, 3, 8)) < 0.5
    mask[:, :, 5], mask[:, :, 6] = True, False  # pairs in which no head differs
    scale = np.where(mask, rng.uniform(1, 9, 8), 1.0)
    to = PositionMap(Grid(scale), Grid(24 - np.floor(24 / scale)), floor=floor)
    both, positions = variants(to), torch.arange(40)
    assert both is not None and not both.first.per_head and not both.second.per_head
    for layer in range(layers):
        chosen = torch.where(both.mask(layer, 8)[:, None, :], both.second(positions), both.first(positions))
        assert torch.equal(chosen, to(positions, layer))


def test_a_mask_has_all_pairs_where_heads_have_one_scale_for_them() -> None:
    both = variants(PositionMap(Grid([[2.0], [5.0]])))
    assert both is not None
    assert torch.equal(both.mask(0, 3), torch.tensor([[False] * 3, [True] * 3]))


@pytest.mark.parametrize("field", ["scale", "offset"])
def test_a_pair_with_three_maps_over_heads_has_no_two(field) -> None:
    several = Grid(np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]]))
    assert variants(PositionMap(**{field: several})) is None


def test_offsets_that_differ_under_one_scale_have_no_two() -> None:
    assert variants(PositionMap(Grid([[2.0], [2.0]]), Grid([[1.0], [5.0]]))) is None
