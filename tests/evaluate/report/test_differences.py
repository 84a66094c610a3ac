from ropewalk.evaluate.compare import compare
from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.report.differences import differences
from tests.evaluate.samples import sample


def found(rows, **options):
    [study] = studies(rows)
    return differences(study, **options)


def test_differences_are_those_of_compare(rows):
    made = {(one.panel.task, one.length): one.comparison for one in found(rows) if one.series.name == "dpe"}
    said = compare([one for one in rows if not one.key.control], "none", "dpe")
    assert set(made) == {(one.task, one.length) for one in said} and len(made) == 8
    for one in said:
        mine = made[one.task, one.length]
        assert (mine.difference, mine.holm_p, mine.warnings) == (one.difference, one.holm_p, one.warnings)


def test_a_control_is_compared_with_stock_though_both_are_resolved_alike(rows):
    [small, large] = [one for one in found(rows) if one.series.name == "truncate-middle"]
    assert (small.panel.task, small.length, large.length) == ("needle", 4096, 16384)
    assert small.comparison.difference.mean < 0 < large.comparison.difference.mean


def test_settings_under_one_name_are_compared_one_by_one():
    rows = [sample(i, [0.0]) for i in range(4)]
    rows += [sample(i, [float(x)], method="yarn", resolved=f"yarn:x={x}") for i in range(4) for x in (0, 1)]
    assert [(one.series.name, one.comparison.difference.mean) for one in found(rows)] == [
        ("yarn:x=0", 0.0),
        ("yarn:x=1", 1.0),
    ]


def test_without_stock_there_are_none():
    assert found([sample(method="yarn"), sample(method="dpe")]) == []
    assert found([sample(), sample(method="dpe", length=8192)]) == []


def test_calibration_prompts_are_warned_of():
    [one] = found([sample(), sample(method="yarn")], calibration={"prompt-0-0"})
    assert "were used to calibrate" in " ".join(one.comparison.warnings)
