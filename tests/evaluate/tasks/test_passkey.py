import pytest

from ropewalk.evaluate.ruler.wording import NOISE
from ropewalk.evaluate.tasks import TASKS, Question
from ropewalk.evaluate.unit import document_seed


@pytest.fixture
def task():
    return TASKS.get("passkey")


def test_prompt_is_noise_with_one_key(task, bpe):
    document = task.build(bpe, 1000, seed=11, corpus="sotu")
    [question], [needle] = document.frame.questions, document.frame.needles
    assert len(question.references[0]) == 5 and question.references[0].isdecimal()
    noise = [line for line in document.lines if line != needle.sentence]
    assert len(document.lines) == len(noise) + 1 and set(noise[:-1]) == {" ".join(NOISE)}
    assert " ".join(NOISE).startswith(noise[-1])
    assert question.text.endswith("The pass key is")


@pytest.mark.parametrize("first", [0, 10])
def test_ten_documents_of_a_run_cover_all_tenths(task, bpe, first):
    seeds = [document_seed(3, first + index) for index in range(10)]
    documents = [task.build(bpe, 4096, seed=seed, corpus="sotu") for seed in seeds]
    asked = [document.frame.needles[0].depth for document in documents]
    assert sorted(int(10 * depth) for depth in asked) == list(range(10))
    assert asked != sorted(asked)
    for document, depth in zip(documents, asked, strict=True):
        assert document.frame.needles[0].position / len(document.ids) == pytest.approx(depth, abs=0.03)


def test_runs_and_blocks_have_orders_of_their_own(task, bpe):
    def order(seed, first):
        frames = [task.build(bpe, 600, seed=document_seed(seed, first + i), corpus="sotu").frame for i in range(10)]
        return tuple(int(10 * frame.needles[0].depth) for frame in frames)

    assert len({order(0, 0), order(0, 10), order(1, 0)}) == 3


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (" {key}", 1.0),
        (": {key}. Remember it.", 1.0),
        ("\n\nThe key, I think, is {key}", 1.0),
        (" 7, no, {key}", 0.0),
        (" {key}9", 0.0),
        (" 0{key}", 0.0),
        (" {most}", 0.0),
        (" the grass is green", 0.0),
        ("", 0.0),
    ],
)
def test_first_integer_has_to_be_the_key(task, bpe, said, score):
    document = task.build(bpe, 600, seed=0, corpus="sotu")
    key = document.frame.questions[0].references[0]
    assert task.grade(document, 0, said.format(key=key, most=key[:4])) == score


@pytest.mark.parametrize("key", ["7", "42", "305", "9001", "12345"])
def test_keys_of_any_number_of_digits_are_matched_whole(task, key):
    question = Question("", "", (key,), 10)
    assert task.found(question, f" {key}, and 1") == (True,)
    assert task.found(question, f" {key}0") == (False,)
    assert task.found(question, f" 5{key}") == (False,)


@pytest.mark.parametrize(("said", "decided"), [(" 123", False), (" is", False), (" 12345.", True), (" 1 2", True)])
def test_score_is_decided_when_the_first_integer_has_ended(task, said, decided):
    assert task.enough(Question("", "", ("12345",), 10), said) is decided
