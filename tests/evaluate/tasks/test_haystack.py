import re

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.document import encode
from ropewalk.evaluate.ruler.words import running_text
from ropewalk.evaluate.tasks import TASKS

NAMES = ["passkey", "needle-grid", "needle-four", "needle-string"]
PROSE = NAMES[1:]


def room_for_answers(tokenizer, document):
    return max(len(encode(tokenizer, each.text)) + each.new_tokens for each in document.frame.questions)


@pytest.fixture(params=NAMES)
def task(request):
    return TASKS.get(request.param)


# With one token a byte, eleven needles with text between them do not fit 4096.
@pytest.mark.parametrize(("which", "length"), [("bpe", 4096), ("bpe", 5003), ("tokenizer", 4096), ("bytes_only", 9000)])
def test_document_with_its_longest_answer_fills_its_length(request, task, which, length):
    tokenizer = request.getfixturevalue(which)
    document = task.build(tokenizer, length, seed=5, corpus="sotu")
    used = len(document.ids) + room_for_answers(tokenizer, document)
    assert 0.99 * length <= used <= length
    assert len(document.scored) == len(document.ids)


def test_tokens_are_those_of_the_text_after_the_start_token(task, bpe):
    document = task.build(bpe, 2000, seed=0, corpus="sotu")
    assert list(document.ids) == bpe(task.text(bpe, document))["input_ids"]


def test_needles_stand_where_their_positions_say_and_do_not_count(task, bpe):
    document = task.build(bpe, 3000, seed=1, corpus="sotu")
    for needle in document.frame.needles:
        assert needle.value in needle.sentence
        size = len(encode(bpe, needle.sentence)) + 3
        assert needle.sentence in bpe.decode(document.ids[needle.position - 1 : needle.position + size])
    counted = [token for token, counts in zip(document.ids, document.scored, strict=True) if counts]
    kept = bpe.decode(counted)
    hidden = document.frame.needles[0].sentence.split(":")[0]
    assert hidden not in kept and document.frame.head[:40] not in kept
    assert not any(value in kept for question in document.frame.questions for value in question.references)
    assert len(document.ids) - len(counted) < 200 + 60 * len(document.frame.needles)


@pytest.mark.parametrize("name", PROSE)
def test_document_without_its_needles_is_the_running_text(bpe, name):
    document = TASKS.get(name).build(bpe, 3000, seed=2, corpus="sotu")
    hidden = {needle.sentence for needle in document.frame.needles}
    text = " ".join(line for line in document.lines if line not in hidden)
    whole = running_text("sotu")
    assert text in f"{whole} {whole}"
    assert text.startswith(" ".join(corpora.paragraphs("sotu")[document.start].split()[:5]))


def test_same_seed_hides_the_same_at_every_length(task, bpe):
    short, long, other = (task.build(bpe, length, seed=seed, corpus="sotu") for length, seed in
                          [(1500, 7), (4000, 7), (1500, 8)])  # fmt: skip

    def hidden(document):
        return [(needle.sentence, needle.depth) for needle in document.frame.needles], document.start

    assert hidden(short) == hidden(long)
    assert short.frame.questions == long.frame.questions
    assert not {needle.value for needle in short.frame.needles} & {needle.value for needle in other.frame.needles}
    assert task.build(bpe, 1500, seed=7, corpus="sotu") == short


def test_length_too_short_is_refused_with_the_smallest(task, bpe):
    with pytest.raises(
        EvaluationError, match=rf"{task.name} does not fit 40 tokens; ask for \d+ tokens or more"
    ) as error:
        task.build(bpe, 40, seed=0, corpus="sotu")
    enough = int(re.search(r"ask for (\d+)", str(error.value)).group(1))
    document = task.build(bpe, enough, seed=0, corpus="sotu")
    assert len(document.ids) + room_for_answers(bpe, document) <= enough
    with pytest.raises(EvaluationError, match=str(enough)):
        task.build(bpe, enough - 1, seed=0, corpus="sotu")


def test_pieces_are_the_text_between_instruction_and_question(task, bpe):
    document = task.build(bpe, 2000, seed=3, corpus="sotu")
    pieces = task.pieces(bpe, document)
    frame = document.frame
    assert frame.head + "".join(piece.text for piece in pieces) + frame.tail == task.text(bpe, document)
    for index, question in enumerate(task.questions(document)):
        golds = [piece.text for piece in pieces if index in piece.golds]
        assert len(golds) == len(question.references)
        assert all(value in gold for value, gold in zip(question.references, golds, strict=True))


def test_shortened_document_keeps_gold_and_asks_one_question(task, bpe):
    document = task.build(bpe, 2000, seed=3, corpus="sotu")
    pieces = task.pieces(bpe, document)
    asked = len(task.questions(document)) - 1
    kept = [index for index, piece in enumerate(pieces) if asked in piece.golds]
    short = task.shorten(bpe, document, asked, [0, *(index for index in kept if index)])
    [question] = task.questions(short)
    assert question == task.questions(document)[asked]
    text = task.text(bpe, short)
    assert text.startswith(document.frame.head + pieces[0].text.rstrip()) and text.endswith(document.frame.tail)
    assert all(value in text for value in question.references)
    assert list(short.ids) == bpe(text)["input_ids"] and len(short.ids) < 400
    assert [needle.value for needle in short.frame.needles][-len(question.references) :] == list(question.references)
    everything = task.shorten(bpe, document, asked, range(len(pieces)))
    assert everything.ids == document.ids and everything.scored == document.scored
    assert task.shorten(bpe, document, asked, []).frame.needles == ()


def test_tokenizers_without_offsets_find_needles_to_within_a_token(task, bpe):
    class Slow(PreTrainedTokenizerFast):
        @property
        def is_fast(self):
            return False

    slow = Slow(tokenizer_object=Tokenizer.from_str(bpe.backend_tokenizer.to_str()), bos_token="<s>")
    one, two = (task.build(each, 2000, seed=4, corpus="sotu") for each in (bpe, slow))
    assert one.ids == two.ids
    for needle, same in zip(one.frame.needles, two.frame.needles, strict=True):
        assert abs(needle.position - same.position) <= 1


def test_document_that_lost_its_middle_has_the_needles_that_are_left(task, bpe):
    document = task.build(bpe, 2000, seed=4, corpus="sotu")
    middle = document.frame.needles[len(document.frame.needles) // 2]
    first, last = middle.position + 5, middle.position + 105
    short = document.without(first, last)
    text = task.text(bpe, short)
    assert text == bpe.decode([*document.ids[1:first], *document.ids[last:]])
    assert task.questions(short) == task.questions(document)
    there = [needle for needle in short.frame.needles if needle.position is not None]
    left = [needle.value for needle in document.frame.needles if needle.sentence in text]
    assert [needle.value for needle in there] == left and middle.value not in left
    for needle in there:
        size = len(encode(bpe, needle.sentence)) + 3
        assert needle.sentence in bpe.decode(short.ids[needle.position - 1 : needle.position + size])
