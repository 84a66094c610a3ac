"""Names are found, and a wrong one says which are near."""

import pytest

from ropewalk.errors import BackendError, MethodError
from ropewalk.registry import Registry


@pytest.fixture
def colours():
    registry = Registry("colour", BackendError)
    registry.register("crimson")("red")
    registry.register("azure")("blue")
    return registry


def test_names_keep_the_order_of_registration(colours) -> None:
    assert colours.names() == list(colours) == ["crimson", "azure"]
    assert len(colours) == 2
    assert colours.get("azure") == "blue"


def test_register_gives_the_entry_back(colours) -> None:
    assert colours.register("white")("snow") == "snow"


def test_unknown_name_says_the_nearest_and_all(colours) -> None:
    with pytest.raises(BackendError, match=r"unknown colour 'crimsn'; did you mean 'crimson'\? known: crimson, azure"):
        colours.get("crimsn")


def test_name_like_no_other_gets_no_suggestion(colours) -> None:
    with pytest.raises(BackendError) as error:
        colours.get("zzz")
    assert str(error.value) == "unknown colour 'zzz'; known: crimson, azure"


def test_error_is_the_kind_that_the_registry_was_made_with() -> None:
    with pytest.raises(MethodError):
        Registry("method", MethodError).get("x")


def test_second_entry_under_one_name_is_a_programming_error(colours) -> None:
    with pytest.raises(AssertionError, match="registered twice"):
        colours.register("azure")("sky")
