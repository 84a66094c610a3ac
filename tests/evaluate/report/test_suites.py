from statistics import fmean

from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.report.suites import reaches, suites
from ropewalk.evaluate.ruler.score import effective_length
from tests.evaluate.report.rows import row
from tests.evaluate.samples import sample


def only(rows):
    [found] = studies(rows)
    return suites(found)


def test_ruler_tasks_are_one_suite_and_losses_none(rows):
    found = {suite.name: [panel.task for panel in suite.panels] for suite in only(rows)}
    assert found == {"needle": ["needle"], "RULER": ["niah_single_1", "vt"]}


def test_reach_is_the_effective_length_of_the_documents_by_the_stock_models_score(rows):
    ruler = next(suite for suite in only(rows) if suite.name == "RULER")
    reach = next(one for one in reaches(ruler) if one.series.name == "dpe")

    def scores(method):
        found = {}
        for one in rows:
            if one.label == method and one.key.task in ("niah_single_1", "vt"):
                found.setdefault(one.key.length, {}).setdefault(one.key.task, []).append(fmean(one.scores))
        return found

    own = min(scores("none"))
    assert reach.effective == effective_length(scores("dpe"), own=(own, scores("none")[own]))
    assert reach.tasks == ["niah_single_1", "vt"] and reach.largest == 16384


def test_tasks_that_a_series_lacks_at_a_length_do_not_count():
    where = [("vt", 4096), ("vt", 8192), ("cwe", 4096)]
    [suite] = only([row(task, "none", i, length=length) for task, length in where for i in range(3)])
    [reach] = reaches(suite)
    assert reach.tasks == ["vt"] and reach.effective is not None
    [suite] = only([row("vt", "none", 0, length=4096), row("cwe", "none", 0, length=8192)])
    [reach] = reaches(suite)
    assert reach.tasks == [] and reach.effective is None


def test_question_files_join_the_rest_of_ruler():
    texts = [sample(0, [1.0], task="vt"), sample(0, [1.0], task="qa_1", corpus_sha256="squad")]
    [suite] = only(texts)
    assert (suite.name, [panel.task for panel in suite.panels]) == ("RULER", ["vt", "qa_1"])
    [alone] = only(texts[1:])
    assert [panel.task for panel in alone.panels] == ["qa_1"]
    found = only([*texts, sample(0, [0.0], task="qa_1", corpus_sha256="another")])
    assert [[panel.task for panel in suite.panels] for suite in found] == [["vt"], ["qa_1"], ["qa_1"]]


def test_templates_are_suites_of_their_own():
    found = only([sample(0, [1.0], task="vt"), sample(0, [1.0], task="vt", template="chat")])
    assert [suite.name for suite in found] == [
        "RULER (needle-ten-kinds/1, no template)",
        "RULER (needle-ten-kinds/1, chat)",
    ]
