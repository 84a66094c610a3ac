import json

from ropewalk.evaluate.effective import effective_lengths
from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.report.suites import reaches, suites
from tests.evaluate.report.rows import study


def test_effective_lengths_are_those_of_the_report():
    rows = study(lengths=(4096, 16384), methods=("none", "dpe"), seeds=(0,), documents=3)
    found = effective_lengths(rows)
    [whole] = studies(rows)
    wanted = [(suite.name, reach.series.name, reach.effective) for suite in suites(whole) for reach in reaches(suite)]
    assert [(one.suite, one.method, one.found) for one in found] == wanted
    assert {one.suite for one in found} == {"needle", "needle-grid", "RULER"}
    first = json.loads(json.dumps(found[0].to_json(), allow_nan=False))
    assert {"suite", "method", "tasks", "length", "low", "high", "threshold", "rule", "macros", "largest"} == set(first)


def test_one_length_has_no_reach():
    assert effective_lengths(study(lengths=(4096,), methods=("none",), seeds=(0,), documents=2)) == []
