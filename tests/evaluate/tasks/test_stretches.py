import pytest

from ropewalk.evaluate.document import SEPARATOR, start_tokens
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.tasks.stretches import stretches


@pytest.fixture
def task():
    return TASKS.get("needle")


@pytest.mark.parametrize("seed", range(4))
def test_stretches_are_the_document_in_tokens_and_in_text(task, bpe, seed):
    document = task.build(bpe, 1500, seed=seed, corpus="sotu")
    found = stretches(bpe, document)
    ids = [*start_tokens(bpe), *(token for stretch in found for token in stretch.ids)]
    assert ids == list(document.ids)
    assert task.text(bpe, document) == bpe.decode(document.ids[1:])
    assert all(stretch.text.endswith(SEPARATOR) for stretch in found)
    assert [stretch.fact for stretch in found if stretch.fact is not None] == list(range(10))
    assert task.text(bpe, document) == "".join(piece.text for piece in task.pieces(bpe, document))


def test_document_of_all_its_pieces_is_the_document_with_one_question(task, bpe):
    document = task.build(bpe, 1500, seed=0, corpus="sotu")
    short = task.shorten(bpe, document, 3, range(len(stretches(bpe, document))))
    assert (short.ids, short.scored, short.facts) == (document.ids, document.scored, document.facts[3:4])


def test_text_of_a_shortened_document_is_that_of_its_tokens(task, bpe):
    document = task.build(bpe, 1500, seed=0, corpus="sotu")
    found = stretches(bpe, document)
    kept = [0, next(index for index, stretch in enumerate(found) if stretch.fact == 2), len(found) - 1]
    short = task.shorten(bpe, document, 2, kept)
    assert task.text(bpe, short) == "".join(found[index].text for index in kept)
    assert short.facts[0].position == 1 + len(found[0].ids)
    assert task.shorten(bpe, document, 4, kept).facts[0].position is None


@pytest.mark.parametrize(
    ("said", "score"), [("{}", 1), (" {}. And", 1), ("\n{}", 1), ("{}s", 0), ("the {}", 0), ("", 0)]
)
def test_answer_counts_where_it_begins_what_is_said_as_a_word(task, bpe, said, score):
    document = task.build(bpe, 1500, seed=0, corpus="sotu")
    for index, question in enumerate(task.questions(document)):
        assert task.grade(document, index, said.format(*question.references)) == score
