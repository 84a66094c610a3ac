"""Methods for position tables: the rows that the paper gives them, and their text form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import MethodError
from ropewalk.methods.tables import TABLE_METHODS, InterpolatedPositions, TableMethod, parse_table

LENGTHS = {"length": st.integers(1, 20), "target": st.integers(1, 90)}


def longer(name: str, table: np.ndarray, target: int) -> tuple[TableMethod, np.ndarray]:
    method = parse_table(name).resolve(len(table), target)
    assert isinstance(method, TableMethod)
    return method, method.rows(table, max(target, (len(table) - 1) * method.stride + 1))


@pytest.mark.parametrize("name", ["grouped-positions", "recurrent-positions", "interpolated-positions"])
@given(**LENGTHS)
def test_every_stride_th_row_is_an_original_one(name: str, length: int, target: int) -> None:
    table = np.random.default_rng(length).normal(size=(length, 3))
    if target < length:
        with pytest.raises(MethodError, match="below"):
            parse_table(name).resolve(length, target)
        return
    method, rows = longer(name, table, target)
    assert len(rows) >= target
    assert np.array_equal(rows[: length * method.stride : method.stride][:length], table)


@given(**LENGTHS)
def test_interpolated_rows_are_those_of_numpy(length: int, target: int) -> None:
    target = max(length, target)
    table = np.random.default_rng(length).normal(size=(length, 3))
    method, rows = longer("interpolated-positions", table, target)
    at = np.arange(length) * method.stride
    wanted = np.stack([np.interp(np.arange(len(rows)), at, column) for column in table.T], axis=1)
    assert np.allclose(rows, wanted, atol=1e-12)


@given(**LENGTHS)
def test_grouped_and_recurrent_rows_are_those_of_a_loop(length: int, target: int) -> None:
    target = max(length, target)
    table = np.arange(length)[:, None] * 1.0
    method, rows = longer("grouped-positions", table, target)
    assert method.stride == next(s for s in range(1, 91) if s * length >= target)
    assert rows[:, 0].tolist() == [p // method.stride for p in range(len(rows))]
    assert longer("recurrent-positions", table, target)[1][:, 0].tolist() == [p % length for p in range(target)]


@pytest.mark.parametrize(
    "text",
    ["none", "grouped-positions:group=3", "interpolated-positions:log_n=true,factor=8", "recurrent-positions",
     "parallel-windows:window=256,overlap=16", "tuned-positions:weights=here/there"],
)  # fmt: skip
def test_text_form_is_read_back(text: str) -> None:
    assert str(parse_table(text)) == text


def test_choices_are_filled_and_explained() -> None:
    assert InterpolatedPositions().why(512, 4096)["factor"] == (8, "target / trained, rounded up")
    assert InterpolatedPositions(factor=9).why(512, 4096)["factor"] == (9, "given")
    assert InterpolatedPositions(factor=9).natural_length(512) == 4608
    assert InterpolatedPositions().natural_length(512) == 512


def test_every_method_says_what_it_is() -> None:
    for name in TABLE_METHODS:
        method = TABLE_METHODS.get(name)
        assert method.name == name and method.kind == "table" and method.paper
