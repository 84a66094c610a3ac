"""Lengths as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import MethodError, RopewalkError
from ropewalk.lengths import format_length, parse_length


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("1", 1), ("4096", 4096), ("4k", 4096), ("4K", 4096), ("1.5k", 1536), ("1m", 2**20), (" 16k ", 16384),
     ("8_192", 8192), ("8,192", 8192)],
)  # fmt: skip
def test_length_is_read(text, tokens) -> None:
    assert parse_length(text) == tokens


@pytest.mark.parametrize("text", ["", "k", "0", "-1", "4kb", "4 k", "1e3", "0.3", "1.0001k", "nan", "inf", "½"])
def test_what_is_not_a_length_is_refused(text) -> None:
    with pytest.raises(RopewalkError, match="is not a length"):
        parse_length(text)


def test_error_is_of_the_kind_asked_for() -> None:
    with pytest.raises(MethodError):
        parse_length("x", MethodError)


@given(st.integers(1, 2**31))
def test_written_length_is_read_back(tokens) -> None:
    assert parse_length(format_length(tokens)) == tokens


def test_shortest_exact_spelling_is_written() -> None:
    assert [format_length(n) for n in (1, 1024, 5000, 16384, 2**21)] == ["1", "1k", "5000", "16k", "2m"]
