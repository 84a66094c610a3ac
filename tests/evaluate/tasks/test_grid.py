import pytest

from ropewalk.evaluate.tasks import TASKS


@pytest.fixture
def task():
    return TASKS.get("needle-grid")


@pytest.mark.parametrize("length", [4096, 16384])
def test_needles_stand_at_eleven_depths_in_order(task, bpe, length):
    document = task.build(bpe, length, seed=0, corpus="sotu")
    needles = document.frame.needles
    assert [needle.depth for needle in needles] == pytest.approx([index / 10 for index in range(11)])
    hidden = {needle.sentence for needle in needles}
    assert document.lines[0] == needles[0].sentence and document.lines[-1] == needles[-1].sentence
    text = sum(len(line) for line in document.lines if line not in hidden)
    longest = max(len(line) for line in document.lines if line not in hidden)
    for needle in needles:
        before = document.lines[: document.lines.index(needle.sentence)]
        reached = sum(len(line) for line in before if line not in hidden)
        # The place between two sentences that is nearest.
        assert abs(reached - needle.depth * text) <= longest / 2


def test_every_needle_has_a_key_a_value_and_a_question_of_its_own(task, bpe):
    document = task.build(bpe, 3000, seed=1, corpus="sotu")
    needles, questions = document.frame.needles, task.questions(document)
    assert len({needle.value for needle in needles}) == len({question.text for question in questions}) == 11
    for needle, question in zip(needles, questions, strict=True):
        assert question.references == (needle.value,) and len(needle.value) == 7
        key = needle.sentence.removeprefix("One of the special magic numbers for ").split(" is: ")[0]
        assert needle.sentence == f"One of the special magic numbers for {key} is: {needle.value}."
        asked = f"What is the special magic number for {key} mentioned in the provided text?"
        begun = f" The special magic number for {key} mentioned in the provided text is"
        assert (question.search, question.text) == (asked, asked + begun)
    head = "Some special magic numbers are hidden within the following text. Make sure to memorize it."
    assert task.text(bpe, document).startswith(head)


def test_scores_and_details_are_in_depth_order(task, bpe, answering, report):
    document = task.build(bpe, 2500, seed=2, corpus="sotu")
    values = [needle.value for needle in document.frame.needles]
    # Every other one right; the others give a distractor's value, and one says nothing.
    said = [f" {value}." if index % 2 == 0 else f": {values[0]}" for index, value in enumerate(values)]
    said[-1] = " none"
    measured = task.measure(answering(document, said), bpe, document, report=report)
    assert measured.scores == (1.0, 0.0) * 5 + (0.0,)
    assert measured.n == 11
    answers = measured.details["answers"]
    assert measured.details["depths"] == [index / 10 for index in range(11)]
    assert [answer["retrieved"] for answer in answers] == [bool(score) for score in measured.scores]
    assert [answer["answer"] for answer in answers] == values
    assert [answer["text"] for answer in answers] == said
    assert [answer["depth"] for answer in answers] == sorted(answer["depth"] for answer in answers)
    for answer, needle in zip(answers, document.frame.needles, strict=True):
        assert answer["distance"] == len(document.ids) - needle.position
    right = [answer["log_probability"] for answer in answers if answer["retrieved"]]
    wrong = [answer["log_probability"] for answer in answers if not answer["retrieved"]]
    assert min(right) > -0.1 and max(wrong) < -5
    assert measured.details["loss"] > 0 and measured.details["loss_by_position"][0][0] == 0
