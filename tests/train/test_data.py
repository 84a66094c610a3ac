"""Sequences are a function of the seed and their index, and every piece comes once an epoch."""

import numpy as np
import pytest

from ropewalk.errors import TrainingError
from ropewalk.train.data import Sequences
from ropewalk.train.samplers import Contiguous, PoSE

DOCUMENTS = [np.arange(100), np.arange(1000, 1017), np.arange(2000, 2045)]


def test_every_piece_comes_once_an_epoch_in_an_order_of_the_epoch() -> None:
    data = Sequences(DOCUMENTS, Contiguous(), length=20, count=28, seed=0)
    assert len(data.pieces) == 7  # five of the first document, none of the second, two of the third
    firsts = [int(data[index].ids[0]) for index in range(28)]
    epochs = [firsts[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == [0, 20, 40, 60, 80, 2000, 2020] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_sequences_depend_on_seed_and_index_alone_and_are_drawn_anew_every_epoch() -> None:
    made = {seed: Sequences(DOCUMENTS[:1], PoSE(target_length=500), length=20, count=9, seed=seed) for seed in (0, 1)}
    backwards = [made[0][index] for index in reversed(range(9))][::-1]
    positions = [made[0][index].drawn.positions for index in range(9)]
    assert all((one.drawn.positions == other).all() for one, other in zip(backwards, positions, strict=True))
    assert len({tuple(one) for one in positions}) == 9
    assert any((made[1][index].drawn.positions != positions[index]).any() for index in range(9))


def test_pose_draws_its_second_chunk_from_five_sequences() -> None:
    data = Sequences(DOCUMENTS, PoSE(target_length=500), length=20, count=200, seed=0)
    tokens = [data[index].ids for index in range(200)]
    assert max(int(one[-1] - one[0]) for one in tokens) > 60
    assert all((np.diff(one) > 0).all() for one in tokens)


def test_documents_that_are_all_too_short_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"no document has 200 tokens \(the longest of 3 has 100\)"):
        Sequences(DOCUMENTS, Contiguous(), length=200, count=1, seed=0)
