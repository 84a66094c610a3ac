import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.metrics import clean, string_match_all, string_match_part


@pytest.mark.parametrize(
    ("prediction", "references", "all_of", "any_of"),
    [
        ("It was Denver.", ("Denver", "Denver, Colorado", "the Mile High City"), 1 / 3, 1.0),
        ("1, 2 and 4", ("1", "2", "3", "4"), 0.75, 1.0),
        ("nothing", ("1", "2"), 0.0, 0.0),
        ("DENVER", ("denver",), 1.0, 1.0),
        ("", ("a",), 0.0, 0.0),
        # no normalisation: NVIDIA/RULER issue 100
        ("3677", ("3,677",), 0.0, 0.0),
        ("3,677 seated", ("3,677",), 1.0, 1.0),
    ],
)
def test_metrics_agree_with_hand_worked_cases(prediction, references, all_of, any_of):
    assert string_match_all(prediction, references) == pytest.approx(all_of)
    assert string_match_part(prediction, references) == any_of


def test_clean_strips_and_turns_control_characters_into_line_breaks():
    assert clean("  a\tb\x00c \n") == "a\nb\nc"
    assert string_match_all("new\tyork", ["new york"]) == 0.0


@pytest.mark.parametrize("metric", [string_match_all, string_match_part])
def test_answer_without_references_is_refused(metric):
    with pytest.raises(EvaluationError, match="references"):
        metric("a", [])
