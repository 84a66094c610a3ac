"""Groups, grids and the methods that settings stand for."""

import numpy as np
import pytest

from ropewalk.calibrate.axis import (
    BORDERS,
    base_setting,
    baseline,
    default_values,
    describe,
    extra_axes,
    groups_by_count,
    groups_by_wavelength,
    method_fields,
    paper_values,
    plain_rule,
    scale_axes,
    varied,
)
from ropewalk.errors import EvaluationError
from ropewalk.methods import DPE
from ropewalk.rotary import RotarySpec, default_inv_freq


def spec_of(head_dim, base, window, rotary_dim=None):
    rotary_dim = rotary_dim or head_dim
    return RotarySpec(head_dim, rotary_dim, base, window, 4, 2, 2, tuple(default_inv_freq(base, rotary_dim).tolist()))


SMOLLM = spec_of(64, 100_000.0, 8192)
LLAMA = spec_of(128, 500_000.0, 8192)


def test_groups_by_count_are_the_published_ones():
    assert groups_by_count(LLAMA, 8) == [(first, first + 8) for first in range(0, 64, 8)]
    with pytest.raises(EvaluationError, match="32 rotary pairs do not make 5 equal groups"):
        groups_by_count(SMOLLM, 5)


@pytest.mark.parametrize("spec", [SMOLLM, LLAMA, spec_of(80, 10_000.0, 2048, rotary_dim=32), spec_of(8, 10_000.0, 64)])
@pytest.mark.parametrize("borders", BORDERS)
def test_groups_by_wavelength_cover_all_pairs_and_keep_to_their_borders(spec, borders):
    groups = groups_by_wavelength(spec, borders)
    assert [pair for first, last in groups for pair in range(first, last)] == list(range(spec.pairs))
    edges = [0.0, *borders, np.inf]
    inside = spec.wavelengths / spec.pretrained_length
    for first, last in groups:
        place = np.searchsorted(borders, inside[first])
        assert all(edges[place] < value <= edges[place + 1] for value in inside[first:last])


def test_first_pair_beyond_the_trained_window_begins_a_group():
    critical = int((SMOLLM.wavelengths <= 8192).sum())
    for borders in BORDERS[:3]:
        assert critical in [first for first, _ in groups_by_wavelength(SMOLLM, borders)]


def test_baseline_and_candidates_follow_from_the_target():
    assert [baseline(SMOLLM, target) for target in (8192, 16384, 32768)] == [2, 4, 8]
    assert default_values(SMOLLM, 8192) == (1, 2, 4, 8)
    assert default_values(SMOLLM, 16384) == (1, 2, 4, 8)
    assert default_values(SMOLLM, 24576) == (1, 2, 4, 6, 8)
    assert default_values(SMOLLM, 32768) == (1, 2, 4, 8, 16)
    assert paper_values(131072) == (1, 2, 4, 8, 16, 32, 64, 128)
    assert paper_values(16384) == (1, 2, 4, 8, 16)
    assert paper_values(512) == (1,)


def test_setting_is_a_method_with_these_scales_on_these_pairs():
    groups = groups_by_wavelength(SMOLLM, (1 / 4, 1.0))
    axes = scale_axes(SMOLLM, 16384, groups, (1, 2, 4, 8)) + extra_axes(SMOLLM, 16384, ["window", "logit_scale"])
    setting = varied(axes, 0, 1.0)
    method = DPE(**method_fields(axes, setting, SMOLLM)).resolve(SMOLLM, 16384)
    first, last = groups[0]
    assert method.scales == tuple(1.0 if first <= pair < last else 4.0 for pair in range(32))
    assert (method.window, method.logit_scale) == (1024, 1.0)
    uniform = DPE(**method_fields(axes, base_setting(axes), SMOLLM))
    assert uniform.scales == (4.0,)
    halves = scale_axes(SMOLLM, 16384, groups_by_count(SMOLLM, 8), (1, 4))
    assert method_fields(halves, (1,) * 4 + (4,) * 4, SMOLLM)["scales"] == (1, 4)
    assert describe(axes, base_setting(axes)) == "uniform at 4"
    assert describe(axes, setting).endswith("at 1")


def test_window_and_gain_prefer_what_the_method_has_by_itself():
    window, gain = extra_axes(SMOLLM, 16384, ["window", "logit_scale"])
    assert (window.values, window.base) == ((1024, 512, 2048), 1024)
    assert gain.base == gain.values[0] == 1 and gain.values[1] == pytest.approx((0.1 * np.log(2) + 1) ** 2, abs=1e-4)
    with pytest.raises(EvaluationError, match="'base' cannot be searched"):
        extra_axes(SMOLLM, 16384, ["base"])


@pytest.mark.parametrize("borders", [(), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0)])
def test_borders_must_ascend(borders):
    with pytest.raises(EvaluationError, match="do not ascend"):
        groups_by_wavelength(SMOLLM, borders)


@pytest.mark.parametrize("target", [16384, 24576])
@pytest.mark.parametrize("borders", BORDERS)
def test_plain_rule_is_what_dpe_does_without_a_profile(borders, target):
    axes = scale_axes(SMOLLM, target, groups_by_wavelength(SMOLLM, borders), (1,))
    axes += extra_axes(SMOLLM, target, ["window", "logit_scale"])
    given = DPE(**method_fields(axes, plain_rule(axes, SMOLLM, target), SMOLLM)).resolve(SMOLLM, target)
    own = DPE(shipped=False).resolve(SMOLLM, target)
    spread = [scale for scale in given.scales for _ in range(SMOLLM.pairs // len(given.scales))]
    assert tuple(spread) == own.scales and (given.window, given.logit_scale) == (own.window, own.logit_scale)


def test_plain_rule_is_no_setting_of_groups_that_mix_its_pairs():
    axes = scale_axes(SMOLLM, 16384, groups_by_count(SMOLLM, 8), (1,))
    assert plain_rule(axes, SMOLLM, 16384) is None
