"""The frequency oracles against transformers, where it has the type, and against the identities of the papers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from . import frequencies

# (rotary_dim, base, trained length): Llama-2, Llama-3, Qwen2.5, SmolLM2, and an odd small one.
MODELS = [(128, 1e4, 4096), (128, 5e5, 8192), (128, 1e6, 32768), (64, 1e5, 8192), (24, 1e4, 300)]
FLOAT32 = 1e-6  # relative: transformers computes its tables in float32
EXACT = 1e-12

models = pytest.mark.parametrize(("rotary_dim", "base", "pretrained"), MODELS)


def slowed(rotary_dim: int, base: float, inv_freq: NDArray[np.float64]) -> NDArray[np.float64]:
    """lambda_i = theta_i / theta'_i."""
    return frequencies.plain(rotary_dim, base) / inv_freq


def assert_same(ours: frequencies.Table, theirs: frequencies.Table) -> None:
    assert_allclose(ours[0], theirs[0], rtol=FLOAT32, atol=0)
    assert ours[1] == pytest.approx(theirs[1], rel=EXACT)


@models
@pytest.mark.parametrize("factor", [1.0, 2.0, 5.5, 16.0])
def test_tables_equal_those_of_transformers(rotary_dim: int, base: float, pretrained: int, factor: float) -> None:
    def theirs(seq_len: int | None = None, **parameters: object) -> frequencies.Table:
        return frequencies.transformers_table(
            {"factor": factor, **parameters}, head_dim=rotary_dim, base=base, length=pretrained, seq_len=seq_len
        )

    assert_same(frequencies.pi(rotary_dim, base, factor), theirs(rope_type="linear"))
    for length in (pretrained // 2, pretrained, pretrained + 1, 3 * pretrained, 7 * pretrained + 5):
        ours = frequencies.dynamic_ntk(rotary_dim, base, factor, pretrained, length)
        assert_same(ours, theirs(seq_len=length, rope_type="dynamic"))
    for truncate in (True, False):
        ours = frequencies.yarn(rotary_dim, base, factor, pretrained, truncate=truncate)
        assert_same(ours, theirs(rope_type="yarn", truncate=truncate))
    ours = frequencies.yarn(rotary_dim, base, factor, pretrained, beta_fast=20.0, beta_slow=2.0)
    assert_same(ours, theirs(rope_type="yarn", beta_fast=20.0, beta_slow=2.0))
    for low, high in ((1.0, 4.0), (2.0, 9.0)):
        ours = frequencies.llama3(rotary_dim, base, factor, pretrained, low, high)
        assert_same(ours, theirs(rope_type="llama3", low_freq_factor=low, high_freq_factor=high))


@models
def test_longrope_equals_transformers_on_both_sides_of_the_boundary(
    rotary_dim: int, base: float, pretrained: int
) -> None:
    short = [1 + 0.01 * i for i in range(rotary_dim // 2)]
    long = [1 + 0.5 * i for i in range(rotary_dim // 2)]
    parameters = {"rope_type": "longrope", "factor": 8.0, "short_factor": short, "long_factor": long}
    for length in (pretrained - 1, pretrained, pretrained + 1, 8 * pretrained):
        ours = frequencies.longrope(rotary_dim, base, 8.0, pretrained, length, short=short, long=long)
        theirs = frequencies.transformers_table(
            parameters, head_dim=rotary_dim, base=base, length=pretrained, seq_len=length
        )
        assert_same(ours, theirs)
    at_boundary = frequencies.longrope(rotary_dim, base, 8.0, pretrained, pretrained, short=short, long=long)[0]
    assert_allclose(slowed(rotary_dim, base, at_boundary), short, rtol=EXACT)


@models
def test_factor_one_leaves_the_table_alone(rotary_dim: int, base: float, pretrained: int) -> None:
    plain = frequencies.plain(rotary_dim, base)
    ones = [1.0] * (rotary_dim // 2)
    tables = [
        frequencies.pi(rotary_dim, base, 1.0),
        frequencies.ntk(rotary_dim, base, 1.0),
        frequencies.ntk_liu(rotary_dim, base, pretrained, pretrained),
        frequencies.dynamic_ntk(rotary_dim, base, 2.0, pretrained, pretrained),
        frequencies.ntk_by_parts(rotary_dim, base, 1.0, pretrained),
        frequencies.yarn(rotary_dim, base, 1.0, pretrained),
        frequencies.yarn_paper(rotary_dim, base, 1.0, pretrained),
        frequencies.yarn_lambda(rotary_dim, base, 1.0, pretrained),
        frequencies.llama3(rotary_dim, base, 1.0, pretrained),
        frequencies.longrope(rotary_dim, base, 1.0, pretrained, 2 * pretrained, short=ones, long=ones),
    ]
    for inv_freq, attention_factor in tables:
        assert_allclose(inv_freq, plain, rtol=EXACT)
        assert attention_factor == 1.0


@models
@pytest.mark.parametrize("factor", [4.0, 16.0])
def test_tables_meet_where_the_papers_say(rotary_dim: int, base: float, pretrained: int, factor: float) -> None:
    pi = frequencies.pi(rotary_dim, base, factor)[0]
    by_parts = frequencies.ntk_by_parts(rotary_dim, base, factor, pretrained, alpha=1.0, beta=4.0)[0]
    assert_allclose(frequencies.llama3(rotary_dim, base, factor, pretrained)[0], by_parts, rtol=EXACT)

    lambdas = slowed(rotary_dim, base, frequencies.ntk(rotary_dim, base, factor)[0])
    assert_allclose(lambdas, [factor ** (2 * i / (rotary_dim - 2)) for i in range(rotary_dim // 2)], rtol=1e-10)
    dynamic = frequencies.dynamic_ntk(rotary_dim, base, 2.0, pretrained, int(factor) * pretrained)[0]
    assert_allclose(dynamic, frequencies.ntk(rotary_dim, base, 2 * factor - 1)[0], rtol=EXACT)

    equal = [factor] * (rotary_dim // 2)
    longrope = frequencies.longrope(
        rotary_dim, base, factor, pretrained, pretrained + 1, short=[1.0] * (rotary_dim // 2), long=equal
    )
    assert_allclose(longrope[0], pi, rtol=EXACT)
    # A ramp that ends before the first pair interpolates every pair: rotations beyond those of pair 0.
    beyond = pretrained  # r_0 = L / 2 pi < L
    assert_allclose(
        frequencies.ntk_by_parts(rotary_dim, base, factor, pretrained, alpha=beyond, beta=2 * beyond)[0], pi, rtol=EXACT
    )
    assert_allclose(
        frequencies.yarn_paper(rotary_dim, base, factor, pretrained)[0],
        frequencies.ntk_by_parts(rotary_dim, base, factor, pretrained)[0],
        rtol=EXACT,
    )
    for table in (frequencies.yarn, frequencies.yarn_paper, frequencies.yarn_lambda):
        assert table(rotary_dim, base, factor, pretrained)[1] == pytest.approx(0.1 * math.log(factor) + 1)


def test_ntk_liu_takes_the_wavelength_of_the_trained_length_to_the_target() -> None:
    base, pretrained, target = 5e5, 8192, 131072
    position = math.log(pretrained / (2 * math.pi)) / math.log(base)  # 2i / d of the pair whose wavelength is L
    new_base = frequencies.ntk_liu(128, base, pretrained, target)[0][1] ** (-128 / 2)
    assert 2 * math.pi * new_base**position == pytest.approx(target, rel=1e-9)


def test_the_bases_of_llama3_8b_to_128k_are_the_published_ones() -> None:
    """LongRoPE2's comparison (arXiv 2502.20082): 7.98e7 for Liu's form; 8.36e6 for bloc97's."""
    liu = frequencies.ntk_liu(128, 5e5, 8192, 131072)[0][1] ** (-128 / 2)
    bloc97 = frequencies.ntk(128, 5e5, 16.0)[0][1] ** (-128 / 2)
    assert liu == pytest.approx(7.98e7, rel=1e-3)
    assert bloc97 == pytest.approx(8.36e6, rel=1e-3)


@pytest.mark.parametrize(
    ("table", "model", "factor", "pair", "expected"),
    [
        (frequencies.yarn_paper, (128, 1e4, 4096), 16.0, 38, 8.67),
        (frequencies.yarn, (128, 1e4, 4096), 16.0, 38, 2.85),
        (frequencies.yarn_lambda, (128, 1e4, 4096), 16.0, 33, 8.50),
        (frequencies.yarn, (128, 1e4, 4096), 16.0, 33, 1.88),
        (frequencies.yarn_paper, (128, 1e6, 32768), 4.0, 32, 2.84),
        (frequencies.yarn, (128, 1e6, 32768), 4.0, 32, 1.66),
        (frequencies.yarn_paper, (128, 5e5, 8192), 16.0, 30, 8.60),
        (frequencies.yarn, (128, 5e5, 8192), 16.0, 30, 2.96),
    ],
)
def test_the_three_yarns_differ_as_measured(
    table: Callable[..., frequencies.Table], model: tuple[int, float, int], factor: float, pair: int, expected: float
) -> None:
    rotary_dim, base, pretrained = model
    inv_freq, _ = table(rotary_dim, base, factor, pretrained)
    assert slowed(rotary_dim, base, inv_freq)[pair] == pytest.approx(expected, abs=0.005)
