import pytest

from ropewalk.evaluate.tasks import TASKS

NAMES = ["needle-four", "needle-string"]


@pytest.fixture(params=NAMES)
def task(request):
    return TASKS.get(request.param)


def test_four_values_stand_in_four_strata_in_reading_order(task, bpe):
    depths = []
    for seed in range(12):
        document = task.build(bpe, 4096, seed=seed, corpus="sotu")
        needles, [question] = document.frame.needles, task.questions(document)
        assert tuple(needle.value for needle in needles) == question.references and len(set(question.references)) == 4
        where = [document.lines.index(needle.sentence) for needle in needles]
        assert where == sorted(where)
        for stratum, needle in enumerate(needles):
            assert stratum * 0.2475 <= needle.depth < (stratum + 1) * 0.2475
        depths.append([needle.depth % 0.2475 / 0.2475 for needle in needles])
    jitter = [depth for four in depths for depth in four]
    assert min(jitter) < 0.15 and max(jitter) > 0.85


def test_needles_are_not_snapped_to_blocks_of_sentences(bpe):
    document = TASKS.get("needle-four").build(bpe, 70_000, seed=3, corpus="sotu")
    hidden = [needle.sentence for needle in document.frame.needles]
    text = [line for line in document.lines if line not in hidden]
    places = [sum(line not in hidden for line in document.lines[: document.lines.index(each)]) for each in hidden]
    assert len(text) > 1000 and any(place % 50 for place in places)
    for place, needle in zip(places, document.frame.needles, strict=True):
        assert sum(map(len, text[:place])) / sum(map(len, text)) == pytest.approx(needle.depth, abs=2e-3)


def test_wording_of_dpe_is_that_of_rulers_multivalue(bpe):
    document = TASKS.get("needle-four").build(bpe, 2000, seed=0, corpus="sotu")
    [question] = document.frame.questions
    [key] = {needle.sentence.split(" for ")[1].split(" is: ")[0] for needle in document.frame.needles}
    assert all(len(value) == 7 for value in question.references)
    assert question.text == (
        f"What are all the special magic numbers for {key} mentioned in the provided text? "
        f"The special magic numbers for {key} mentioned in the provided text are"
    )


def test_wording_of_string_has_no_keys(bpe):
    document = TASKS.get("needle-string").build(bpe, 2000, seed=0, corpus="sotu")
    for needle in document.frame.needles:
        assert needle.sentence == f"One of the magic number is: {needle.value}." and len(needle.value) == 6


@pytest.mark.parametrize(("count", "four", "string"), [(0, 0.0, 0.0), (1, 0.25, 0.0), (2, 0.5, 1.0), (4, 1.0, 1.0)])
def test_scores_of_both_rules(bpe, count, four, string):
    for name, score in (("needle-four", four), ("needle-string", string)):
        task = TASKS.get(name)
        document = task.build(bpe, 2000, seed=1, corpus="sotu")
        values = document.frame.questions[0].references
        assert task.grade(document, 0, f" 12, {', '.join(reversed(values[:count]))} and so on") == score
        # Said twice counts once.
        assert task.grade(document, 0, f"{values[0]}, {values[0]}, {values[0]}") == task.grade(document, 0, values[0])


def test_details_tell_which_values_were_found(task, bpe, answering, report):
    document = task.build(bpe, 2000, seed=4, corpus="sotu")
    first, _, third, _ = document.frame.questions[0].references
    said = f" {third}, 55, {first}."
    measured = task.measure(answering(document, [said]), bpe, document, report=report)
    assert measured.scores == ((0.5,) if task.name == "needle-four" else (1.0,))
    assert [answer["retrieved"] for answer in measured.details["answers"]] == [True, False, True, False]
    assert {answer["text"] for answer in measured.details["answers"]} == {said}
    assert measured.n == 1
    assert measured.details["depths"] == [needle.depth for needle in document.frame.needles]


def test_values_that_a_control_cut_out_have_no_depth(task, bpe, model, report):
    document = task.build(bpe, 2000, seed=4, corpus="sotu")
    keep = [index for index, line in enumerate(document.lines) if line != document.frame.needles[1].sentence]
    measured = task.measure(model, bpe, task.shorten(bpe, document, 0, keep), report=report)
    assert [answer["depth"] is None for answer in measured.details["answers"]] == [False, True, False, False]
    assert [answer["distance"] is None for answer in measured.details["answers"]] == [False, True, False, False]
    assert measured.details["answers"][1]["log_probability"] < 0
