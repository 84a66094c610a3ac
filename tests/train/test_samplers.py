"""Position samplers draw what their papers say: ranges, order, distributions, and nothing but from their generator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import TrainingError
from ropewalk.train.positions import SAMPLERS, require_ascending
from ropewalk.train.samplers import E2LLM, Clex, Contiguous, PoSE, RandPos

MANY = 4000  # draws of a distribution test: a share has a standard error of at most .008
NEAR = 0.04  # five of them


def made(name: str, trained: int = 40, factor: int = 8, **fields):
    if name in ("pose", "randpos"):
        fields = {"target_length": trained * factor} | fields
    if name == "mixed":
        fields = {"pretrained_length": trained, "target_length": trained * factor} | fields
    if name == "e2-llm":
        fields = {"pretrained_length": trained, "max_scale": factor} | fields
    if name == "clex":
        fields = {"pretrained_length": trained, "max_factor": factor} | fields
    return SAMPLERS.get(name)(**fields)


def draws(sampler, length: int, document: int | None = None, count: int = MANY, seed: int = 0):
    generator = np.random.default_rng(seed)
    return [sampler.draw(generator, length, document or length) for _ in range(count)]


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """The quartiles of U[low, high] at their places."""
    for share in (0.25, 0.5, 0.75):
        assert abs((values <= low + share * (high - low)).mean() - share) < NEAR
    assert low <= values.min() and values.max() <= high


@pytest.mark.parametrize("name", SAMPLERS.names())
@given(seed=st.integers(0, 2**32), length=st.integers(1, 40), more=st.integers(0, 50), factor=st.integers(1, 20))
def test_positions_ascend_and_stay_in_range(name, seed, length, more, factor) -> None:
    fields = {"chunks": min(3, length)} if name == "pose" else {}
    drawn = made(name, factor=factor, **fields).draw(np.random.default_rng(seed), length, length + more)
    assert len(drawn.positions) == len(drawn.tokens) == length
    assert drawn.positions.dtype == np.float64
    assert (np.diff(drawn.positions) > 0).all() and drawn.positions[0] >= 0
    assert drawn.positions[-1] <= 40 * factor - 1
    assert (np.diff(drawn.tokens) > 0).all() and drawn.tokens[0] >= 0 and drawn.tokens[-1] < length + more
    assert 1 <= drawn.time <= max(factor, 40 * factor / length)


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_one_generator_gives_one_draw_and_the_next_another(name) -> None:
    sampler = made(name)
    first, second = draws(sampler, 40, 90, count=2), draws(sampler, 40, 90, count=2)
    for one, other in zip(first, second, strict=True):
        assert (one.positions == other.positions).all() and (one.tokens == other.tokens).all()
    assert name in ("contiguous", "mixed") or (first[0].positions != first[1].positions).any()


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_document_that_is_too_short_is_refused(name) -> None:
    with pytest.raises(TrainingError, match="a sequence of 12 tokens was asked of a document of 11"):
        draws(made(name), 12, 11, count=1)


@pytest.mark.parametrize(("name", "range_"), [("pose", 320), ("randpos", 320), ("e2-llm", 40), ("clex", 320)])
def test_sequence_longer_than_the_range_is_refused(name, range_) -> None:
    draws(made(name), range_, count=1)
    with pytest.raises(TrainingError, match=rf"{range_ + 1} tokens does not fit into {range_} positions"):
        draws(made(name), range_ + 1, count=1)


# PoSE


@given(seed=st.integers(0, 2**32), length=st.integers(1, 40), chunks=st.integers(1, 6), factor=st.integers(1, 9))
def test_pose_jumps_only_between_its_chunks(seed, length, chunks, factor) -> None:
    chunks = min(chunks, length)
    drawn = PoSE(target_length=40 * factor, chunks=chunks).draw(np.random.default_rng(seed), length, length + 30)
    steps = np.diff(drawn.positions)
    assert (steps > 1).sum() < chunks
    assert (drawn.positions == np.floor(drawn.positions)).all()
    assert drawn.jumps.sum() < chunks and not drawn.jumps[0]


def test_pose_skip_and_content_offset_are_uniform_and_the_first_chunk_begins_at_nothing() -> None:
    found = draws(PoSE(target_length=320), 40, 100)
    assert all(drawn.positions[0] == 0 and drawn.tokens[0] == 0 for drawn in found)
    assert_uniform(np.array([drawn.positions[-1] - 39 for drawn in found]), 0, 280)
    assert_uniform(np.array([drawn.tokens[-1] - 39 for drawn in found]), 0, 60)


def test_pose_cuts_anywhere_and_its_second_bias_begins_at_the_first() -> None:
    found = draws(PoSE(target_length=4000, chunks=2), 40)
    cuts = np.array([int(np.argmax(np.diff(d.positions) > 1)) + 1 for d in found if d.positions[-1] > 39])
    assert_uniform(cuts, 0.5, 39.5)
    third = draws(PoSE(target_length=4000, chunks=3), 40)
    last = np.array([drawn.positions[-1] - 39 for drawn in third])
    # u_2 ~ U{u_1..M} with u_1 ~ U{0..M} has the mean 3 M / 4 and P(u_2 <= M / 2) = (1 - ln 2) / 2
    assert last.mean() == pytest.approx(0.75 * 3960, rel=0.03)
    assert (last <= 1980).mean() == pytest.approx((1 - np.log(2)) / 2, abs=NEAR)


def test_pose_with_one_chunk_or_no_room_is_contiguous() -> None:
    for sampler in (PoSE(target_length=320, chunks=1), PoSE(target_length=40, chunks=4)):
        for drawn in draws(sampler, 40, count=20):
            assert (drawn.positions == np.arange(40)).all()
    with pytest.raises(TrainingError, match="5 chunks cannot be cut from 4 tokens"):
        draws(PoSE(target_length=40, chunks=5), 4, count=1)


# random positions


def test_random_positions_take_every_place_equally_often() -> None:
    found = draws(RandPos(target_length=50), 10)
    counts = np.bincount(np.concatenate([drawn.positions for drawn in found]).astype(int), minlength=50)
    assert np.abs(counts / MANY - 10 / 50).max() < NEAR


# E2-LLM


def test_e2_llm_draws_every_scale_and_leaves_the_sinks_in_their_places() -> None:
    found = draws(E2LLM(pretrained_length=40, max_scale=8), 30)
    scales = np.array([drawn.time for drawn in found])
    assert np.abs(np.bincount(scales.astype(int), minlength=9)[1:] / MANY - 1 / 8).max() < NEAR
    for drawn in found:
        unscaled = drawn.positions * drawn.time
        np.testing.assert_allclose(unscaled[:4], np.arange(4), atol=1e-9)
        np.testing.assert_allclose(np.diff(unscaled[4:]), 1, atol=1e-9)
        assert drawn.positions[-1] < 40  # every position lies in the trained window


def test_e2_llm_offset_is_uniform_over_the_window_of_its_scale() -> None:
    found = draws(E2LLM(pretrained_length=40, max_scale=8), 30)
    share = np.array([(d.positions[4] * d.time - 4) / (d.time * 40 - 30) for d in found])
    assert_uniform(share, 0, 1 + 1e-9)


# CLEX


@pytest.mark.parametrize("length", [40, 100])
def test_clex_time_is_uniform_and_random_places_end_where_the_table_does(length) -> None:
    found = draws(Clex(pretrained_length=40, max_factor=8, spacing="random"), length)
    assert_uniform(np.array([drawn.time for drawn in found]), 1, 8)
    for drawn in found:
        assert drawn.positions[0] == 0
        assert 40 * drawn.time - 2 < drawn.positions[-1] < 40 * drawn.time


def test_clex_on_short_sequences_leaves_the_window_and_reaches_every_time() -> None:
    """n = L / 4: the authors' sampler never gets beyond L, whatever its t is up to 4."""
    found = draws(Clex(pretrained_length=40, max_factor=4, spacing="random"), 10)
    ends = np.array([drawn.positions[-1] for drawn in found])
    assert (ends > 40).mean() > 0.7 and ends.max() > 150
    assert_uniform(ends, 8, 160)
    for drawn in found:
        assert drawn.time == 1 or abs(drawn.time - (drawn.positions[-1] + 1) / 40) < 1 / 40


@pytest.mark.parametrize("length", [10, 40, 100])
def test_clex_chunks_are_two_runs_of_neighbours_within_the_text_of_their_table(length) -> None:
    found = draws(Clex(pretrained_length=40, max_factor=8), length)
    assert_uniform(np.array([d.time for d in found if d.time > 1]), max(1, length / 40), 8)
    for drawn in found:
        steps = np.diff(drawn.positions)
        assert (steps != 1).sum() <= 1 and steps.min() == 1
        assert drawn.positions[0] == 0 and drawn.positions[-1] < 40 * drawn.time
    reached = np.array([d.positions[-1] / (40 * d.time) for d in found if d.time > 2])
    assert reached.max() > 0.99 and 0.4 < reached.mean() < 0.8  # the skip is uniform over what the text leaves


def test_clex_random_places_are_spread_over_the_whole_text() -> None:
    sampler = Clex(pretrained_length=40, max_factor=8, spacing="random")
    middle = [d.positions[1:-1] / d.positions[-1] for d in draws(sampler, 40)]
    assert_uniform(np.concatenate(middle), 0, 1)


def test_clex_in_the_form_of_the_authors_draws_whole_factors() -> None:
    sampler = Clex(pretrained_length=40, max_factor=8, whole=True, spacing="random")
    times = np.array([d.time for d in draws(sampler, 40)])
    assert np.abs(np.bincount(times.astype(int), minlength=9)[1:] / MANY - 1 / 8).max() < NEAR
    assert (times == np.floor(times)).all()


def test_clex_with_even_spacing_has_one_step() -> None:
    for drawn in draws(Clex(pretrained_length=40, max_factor=8, spacing="even"), 30, count=20):
        np.testing.assert_allclose(np.diff(drawn.positions), drawn.positions[-1] / 29)


def test_clex_of_one_window_is_contiguous() -> None:
    (drawn,) = draws(Clex(pretrained_length=40, max_factor=1), 40, count=1)
    assert (drawn.positions == np.arange(40)).all() and drawn.time == 1


@pytest.mark.parametrize(
    ("positions", "message"),
    [([0, 2, 2], "got 2 after 2 at token 2"), ([0, np.nan], "finite"), ([-1, 0], "at least 0"), ([3, 1], "at token 1")],
)
def test_positions_that_do_not_ascend_are_refused(positions, message) -> None:
    with pytest.raises(TrainingError, match=message):
        require_ascending(np.array(positions, dtype=float))


def test_contiguous_is_plain_counting() -> None:
    (drawn,) = draws(Contiguous(), 7, 9, count=1)
    assert (drawn.positions == np.arange(7)).all() and (drawn.tokens == np.arange(7)).all() and not drawn.jumps.any()
