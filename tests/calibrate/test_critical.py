"""Critical dimensions as LongRoPE2 prints them, and what its paper's formula says."""

import math

import pytest

from ropewalk.calibrate.critical import critical_pair, critical_range, first_turning_less
from ropewalk.rotary import RotarySpec, default_inv_freq


def spec_of(head_dim, base, window):
    return RotarySpec(head_dim, head_dim, base, window, 4, 2, 2, tuple(default_inv_freq(base, head_dim).tolist()))


# LLaMA3-8B and Phi3-mini: printed in arXiv 2502.20082; the others follow from ceil((d / 2) log_b(L / 2 pi)).
@pytest.mark.parametrize(
    ("head_dim", "base", "window", "critical", "tenth"),
    [
        (128, 500_000.0, 8192, 35, 24),
        (96, 10_000.0, 2048, 31, 19),
        (128, 10_000.0, 4096, 46, 30),
        (128, 1_000_000.0, 32768, 40, 29),
        (128, 1_000_000.0, 40960, 41, 31),
    ],
)
def test_critical_dimensions_are_the_published_ones(head_dim, base, window, critical, tenth):
    spec = spec_of(head_dim, base, window)
    assert (critical_pair(spec), first_turning_less(spec, 10)) == (critical, tenth)
    assert critical_range(spec) == range(tenth, critical + 1)


@pytest.mark.parametrize(("head_dim", "base", "window"), [(64, 100_000.0, 8192), (32, 10_000.0, 128), (80, 1e4, 2048)])
def test_critical_dimension_is_the_formula(head_dim, base, window):
    formula = math.ceil(head_dim / 2 * math.log(window / (2 * math.pi), base))
    assert critical_pair(spec_of(head_dim, base, window)) == formula


def test_model_whose_pairs_all_turn_has_none():
    spec = spec_of(8, 100.0, 100_000)
    assert critical_pair(spec) == spec.pairs and critical_range(spec)[-1] == spec.pairs - 1
