"""Rotation: a turn that keeps norms, depends on relative positions only, and can be undone."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk import rotary
from ropewalk.errors import MethodError
from ropewalk.grid import Grid
from ropewalk.rotary import FrequencyTable, default_inv_freq, rotate, rotation, unrotate
from tests.contract.cases import make_spec, specs
from tests.oracles import frequencies


def angles(spec, positions):
    theta = torch.tensor(spec.inv_freq, dtype=torch.float64)
    turned = torch.as_tensor(positions, dtype=torch.float64)[:, None] * theta
    return turned.cos(), turned.sin()


def vectors(spec, length, seed=0):
    return torch.randn(2, 3, length, spec.head_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(spec=specs(), T=st.integers(1, 20), start=st.integers(0, 10**6))
def test_rotation_keeps_norms_and_can_be_undone(spec, T, start) -> None:
    x = vectors(spec, T)
    cos, sin = angles(spec, range(start, start + T))
    turned = rotate(x, cos, sin, spec)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(unrotate(turned, cos, sin, spec), x, atol=1e-12, rtol=1e-12)


@given(spec=specs(), m=st.integers(0, 1000), n=st.integers(0, 1000), shift=st.integers(0, 10**5))
def test_dot_products_depend_on_relative_positions_only(spec, m, n, shift) -> None:
    query, key = vectors(spec, 1, seed=1), vectors(spec, 1, seed=2)

    def dot(m, n):
        return (rotate(query, *angles(spec, [m]), spec) * rotate(key, *angles(spec, [n]), spec)).sum(-1)

    torch.testing.assert_close(dot(m + shift, n + shift), dot(m, n), atol=1e-9, rtol=0)


@given(spec=specs(), T=st.integers(1, 20))
def test_position_zero_and_dimensions_beside_the_rotary_ones_pass_through(spec, T) -> None:
    x = vectors(spec, T)
    assert torch.equal(rotate(x, *angles(spec, [0] * T), spec), x)
    turned = rotate(x, *angles(spec, range(1, T + 1)), spec)
    inside = torch.zeros(spec.head_dim, dtype=torch.bool)
    inside[spec.rotary_start : spec.rotary_start + spec.rotary_dim] = True
    assert torch.equal(turned[..., ~inside], x[..., ~inside])
    assert not torch.isclose(turned[..., inside], x[..., inside]).all()


@given(spec=specs(), T=st.integers(1, 20))
def test_interleaved_is_half_with_the_dimensions_permuted(spec, T) -> None:
    half, interleaved = (dataclasses.replace(spec, layout=layout) for layout in ("half", "interleaved"))
    x, tables = vectors(spec, T), angles(spec, range(T))
    order = list(range(spec.head_dim))
    start, pairs = spec.rotary_start, spec.pairs
    order[start : start + 2 * pairs] = [start + i + pairs * side for i in range(pairs) for side in (0, 1)]
    ours = rotate(x[..., order], *tables, interleaved)
    torch.testing.assert_close(ours, rotate(x, *tables, half)[..., order], atol=0, rtol=0)


def test_one_pair_turns_by_its_angle_from_the_first_to_the_second_dimension() -> None:
    spec = make_spec(head_dim=2)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    turned = rotate(x, *angles(spec, [1]), spec)
    torch.testing.assert_close(turned, torch.tensor([[np.cos(1.0), np.sin(1.0)]]), atol=1e-15, rtol=0)


@pytest.fixture
def small_slices(monkeypatch):
    """Slices of 7 tokens for the vectors of these tests."""
    monkeypatch.setattr(rotary, "SLICE", 2 * 3 * 16 * 7)


def in_one_piece(x, cos, sin, spec):
    """`rotate` without slices: vectors that need gradients are never cut."""
    return rotate(x.clone().requires_grad_(), cos, sin, spec).detach()


@pytest.mark.parametrize("length", [6, 7, 8, 26])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_slices_are_the_whole(small_slices, length, dtype, layout) -> None:
    spec = make_spec(rotary_dim=8, rotary_start=4, layout=layout)
    x = vectors(spec, length).to(dtype)
    tables = [table.float() for table in angles(spec, range(length))]
    sliced = rotate(x, *tables, spec)
    assert sliced.dtype == dtype and torch.equal(sliced, in_one_piece(x, *tables, spec))


def test_tables_of_heads_are_sliced_with_the_vectors(small_slices) -> None:
    spec = make_spec()
    x, plain = vectors(spec, 30), angles(spec, range(30))
    assert torch.equal(rotate(x, *(torch.stack([t, t, t]) for t in plain), spec), in_one_piece(x, *plain, spec))


def test_tables_of_one_position_serve_every_slice(small_slices) -> None:
    spec = make_spec()
    x, one = vectors(spec, 30), angles(spec, [7])
    assert torch.equal(rotate(x, *one, spec), in_one_piece(x, *(t.expand(30, -1) for t in one), spec))


def test_bf16_vectors_are_turned_in_float32_and_rounded_once() -> None:
    spec = make_spec()
    x = vectors(spec, 9).bfloat16()
    cos, sin = (table.float() for table in angles(spec, range(9)))
    assert torch.equal(rotate(x, cos, sin, spec), rotate(x.float(), cos, sin, spec).bfloat16())


def test_rotation_scales_cos_and_sin() -> None:
    theta = torch.tensor([1.0, 0.1], dtype=torch.float64)
    positions = torch.arange(5, dtype=torch.float64)[:, None]
    cos, sin = rotation(positions, theta, 1.5)
    assert cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos**2 + sin**2, torch.full((5, 2), 2.25))


@pytest.mark.parametrize(("base", "rotary_dim"), [(1e4, 128), (5e5, 64), (1e6, 6)])
def test_default_frequencies_are_those_of_the_oracle(base, rotary_dim) -> None:
    np.testing.assert_allclose(default_inv_freq(base, rotary_dim), frequencies.plain(rotary_dim, base), rtol=1e-13)


def test_wavelength_is_the_tokens_of_one_full_turn() -> None:
    spec = make_spec()
    np.testing.assert_allclose(spec.wavelengths * np.array(spec.inv_freq), 2 * np.pi, rtol=1e-14)


def test_wavelength_of_a_pair_that_does_not_turn_is_infinite() -> None:
    spec = make_spec()
    still = dataclasses.replace(spec, inv_freq=(*spec.inv_freq[:-1], 0.0))
    with np.errstate(all="raise"):
        assert np.isinf(still.wavelengths).tolist() == [False] * (spec.pairs - 1) + [True]


@pytest.mark.parametrize("inv_freq", [[-1.0], [np.inf]])
def test_impossible_frequencies_are_refused(inv_freq) -> None:
    with pytest.raises(MethodError, match="inverse frequencies"):
        FrequencyTable(Grid(inv_freq))


@pytest.mark.parametrize("scaling", [0.0, -1.0, np.nan, np.inf])
def test_impossible_attention_scaling_is_refused(scaling) -> None:
    with pytest.raises(MethodError, match="attention_scaling"):
        FrequencyTable(Grid([1.0]), scaling)
