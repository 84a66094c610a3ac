import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.calibrate.knots import Curve, Interval, two_places

POINTS = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(np.array)


@given(POINTS)
def test_every_point_is_a_monotone_curve_within_its_bounds(point):
    values = Curve(11, 4, 5.0, monotone=True).decode(point)
    assert len(values) == 11 and (np.diff(values) >= -1e-12).all()
    assert values.min() >= 1 - 1e-12 and values.max() <= 5 + 1e-12


@given(POINTS)
def test_free_curve_is_linear_in_logarithms_between_its_knots(point):
    values = Curve(7, 4, 5.0, monotone=False).decode(point)
    assert np.allclose(np.log(values[::2]) / np.log(5.0), point)
    assert np.allclose(values[1::2] ** 2, values[:-1:2] * values[2::2])


@pytest.mark.parametrize("monotone", [True, False])
@pytest.mark.parametrize(
    "values", [[1.0, 1.0, 1.0], [1.0, 2.0, 5.0], [2.0, 2.0, 2.0], [5.0, 5.0, 5.0], [1.0, 5.0, 5.0]]
)
def test_values_at_knots_come_back(values, monotone):
    curve = Curve(3, 3, 5.0, monotone)
    point = curve.encode(values)
    assert ((point >= 0) & (point <= 1)).all()
    assert curve.decode(point) == pytest.approx(values)


def test_values_that_fall_become_a_monotone_curve():
    curve = Curve(3, 3, 8.0, monotone=True)
    assert curve.decode(curve.encode([1.0, 4.0, 2.0])) == pytest.approx([1.0, 4.0, 4.0])


def test_interval_and_rounding():
    assert Interval(2.0, 4.0).decode(0.25) == 2.5
    assert [Interval(2.0, 4.0).encode(value) for value in (1.0, 2.5, 9.0)] == [0.0, 0.25, 1.0]
    assert two_places([1.234, 2.0]) == (1.23, 2.0)
