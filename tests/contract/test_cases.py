"""A newcomer cannot forget its contract tests."""

from ropewalk.methods import METHODS
from tests.contract.cases import FREQUENCY, PAIRS, POSITION


def test_every_registered_method_has_a_case() -> None:
    assert {"none", *POSITION, *FREQUENCY} == set(METHODS)


def test_every_position_method_has_a_case_with_a_table() -> None:
    assert {pair.partition("+")[0] for pair in PAIRS} == set(POSITION)
