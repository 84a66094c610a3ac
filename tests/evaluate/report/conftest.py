import pytest

from ropewalk.evaluate.report import write_report
from tests.evaluate.report.rows import WINDOW, study


@pytest.fixture(scope="session")
def rows():
    """Two lengths, three methods, one control, two seeds of two documents; every kind of task."""
    methods, tasks = ("none", "dpe", "yarn"), ("needle", "perplexity", "niah_single_1", "vt")
    return study(lengths=(4096, 16384), methods=methods, controls=("truncate-middle",), documents=2, tasks=tasks)


@pytest.fixture(scope="session")
def written(rows, tmp_path_factory):
    """The report of `rows`."""
    return write_report(rows, tmp_path_factory.mktemp("report") / "out", pretrained_length=WINDOW, source="results.db")
