"""All that a report finds in the rows of a study, found once for its figures and its page."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.report.data import Study, studies
from ropewalk.evaluate.report.differences import Against, differences
from ropewalk.evaluate.report.settings import Group, groups
from ropewalk.evaluate.report.suites import Reach, Suite, reaches, suites
from ropewalk.evaluate.row import Row


@dataclass(frozen=True)
class Findings:
    """A study with its suites, its differences against stock, and its settings."""

    study: Study
    suites: list[tuple[Suite, list[Reach]]]
    against: list[Against]
    groups: list[Group]


def find(rows: Sequence[Row], *, calibration: Collection[str] = ()) -> list[Findings]:
    """The findings of every study.

    Raises:
        EvaluationError: there are no rows.
    """
    if not rows:
        raise EvaluationError("there are no samples to report; run `ropewalk eval` into the store first")
    return [
        Findings(
            study,
            [(suite, reaches(suite)) for suite in suites(study)],
            differences(study, calibration=calibration),
            groups(study),
        )
        for study in studies(rows)
    ]
