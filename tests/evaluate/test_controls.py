import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.controls import CONTROLS, applies, controlled, resolve
from ropewalk.evaluate.document import encode, start_tokens
from ropewalk.evaluate.ruler.suite import FAMILIES, OFFLINE, SYNTHETIC
from ropewalk.evaluate.ruler.task import Ruler
from ropewalk.evaluate.tasks import TASKS, TextTask

WINDOW = 1024
LENGTH = 3000
SPREAD = ("cwe", "fwe")
TEXT_TASKS = [name for name in TASKS.names() if isinstance(TASKS.get(name), TextTask)]
NAMES = [*TEXT_TASKS, *OFFLINE, *SYNTHETIC]


def make(name):
    return Ruler(name) if name in FAMILIES.names() else TASKS.get(name)


@pytest.fixture
def task():
    return TASKS.get("needle")


@pytest.fixture
def document(task, tokenizer):
    return task.build(tokenizer, LENGTH, seed=2, corpus="sotu")


def after(tokenizer, question):
    return len(encode(tokenizer, question.text)) + question.new_tokens


@pytest.mark.parametrize(
    ("control", "resolved"),
    [
        ("truncate-middle", "truncate-middle"),
        ("needle-only", "needle-only"),
        ("bm25", "bm25:tokens=256"),
        ("bm25:tokens=1k", "bm25:tokens=1024"),
    ],
)
def test_control_is_written_with_all_its_parameters(control, resolved):
    assert resolve(control, 2048) == resolved
    assert resolve(resolved, 4096) == resolved


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ("bm52", "unknown control 'bm52'; did you mean 'bm25'"),
        ("bm25:token=5", "unknown parameter 'token'; did you mean 'tokens'"),
        ("bm25:tokens=", "'' is not a length"),
        ("bm25:tokens=0", "'0' is not a length"),
        ("bm25:tokens=4,tokens=5", "'tokens' is given twice"),
        ("needle-only:tokens=4", "needle-only takes no parameters"),
    ],
)
def test_wrong_control_is_refused_in_one_line(control, message):
    with pytest.raises(EvaluationError) as error:
        resolve(control, 2048)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("control", CONTROLS.names())
@pytest.mark.parametrize("name", NAMES)
def test_shortened_prompts_fit_the_window_and_ask_the_questions(tokenizer, name, control):
    task = make(name)
    document = task.build(tokenizer, LENGTH, seed=2, corpus="sotu")
    questions = task.questions(document)
    if applies(task, document, control):
        assert name in SPREAD and control != "truncate-middle"
        return
    short = controlled(task, tokenizer, document, control, WINDOW)
    assert len(short) == len(questions)
    for question, one in zip(questions, short, strict=True):
        assert len(one.ids) + after(tokenizer, question) <= WINDOW < len(document.ids)
        assert len(one.ids) == len(one.scored)
        assert question in task.questions(one)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SPREAD])
def test_prompt_of_the_needle_only_holds_the_answer_and_little_else(tokenizer, name):
    task = make(name)
    document = task.build(tokenizer, LENGTH, seed=2, corpus="sotu")
    pieces = task.pieces(tokenizer, document)
    short = controlled(task, tokenizer, document, "needle-only", WINDOW)
    for index, (question, one) in enumerate(zip(task.questions(document), short, strict=True)):
        gold = "".join(piece.text for piece in pieces if index in piece.golds)
        # As tokens, and as text: what is asked for stands there, and of the pieces only those with the gold.
        words = encode(tokenizer, gold)
        assert any(list(one.ids[at : at + len(words)]) == words for at in range(len(one.ids))) or len(short) == 1
        assert all(reference in gold for reference in question.references)
        others = len(one.ids) - len(words)
        assert others <= len(document.ids) - len(encode(tokenizer, "".join(piece.text for piece in pieces))) + 1


@pytest.mark.parametrize("name", NAMES)
def test_pieces_stand_in_the_text_in_order(tokenizer, name):
    task = make(name)
    document = task.build(tokenizer, LENGTH, seed=2, corpus="sotu")
    pieces = "".join(piece.text for piece in task.pieces(tokenizer, document))
    text = task.text(tokenizer, document)
    assert pieces in text
    assert [*start_tokens(tokenizer), *encode(tokenizer, text)] == list(document.ids)
    assert name != "needle" or pieces == text


def test_truncation_keeps_both_ends_in_full_and_asks_everything_once(task, document, tokenizer):
    short = controlled(task, tokenizer, document, "truncate-middle", WINDOW)
    assert all(one is short[0] for one in short)
    room = WINDOW - max(after(tokenizer, question) for question in task.questions(document))
    assert short[0].ids == document.ids[: room // 2] + document.ids[-(room - room // 2) :]
    assert task.questions(short[0]) == task.questions(document)
    assert [*start_tokens(tokenizer), *encode(tokenizer, task.text(tokenizer, short[0]))] == list(short[0].ids)


def test_truncation_moves_the_facts_that_it_leaves(task, document, tokenizer):
    short = controlled(task, tokenizer, document, "truncate-middle", WINDOW)[0]
    found = []
    for fact in short.facts:
        sentence = encode(tokenizer, f"{fact.prefix} {fact.answer}.")
        at = fact.position
        assert at is None or list(short.ids[at : at + len(sentence)]) == sentence
        whole = any(list(short.ids[at : at + len(sentence)]) == sentence for at in range(len(short.ids)))
        assert whole == (at is not None)
        found.append(whole)
    assert found[0] and found[-1] and not all(found)


def test_cut_through_a_fact_loses_it(document):
    first, second = document.facts[:2]
    inside = document.without(first.position + 1, first.position + 3)
    assert inside.facts[0].position is None and inside.facts[1].position == second.position - 2
    before = document.without(first.position - 5, first.position)
    assert [fact.position for fact in before.facts] == [fact.position - 5 for fact in document.facts]
    behind = document.without(document.facts[-1].position + 40, len(document.ids))
    assert behind.without(1, 2).facts[0].position == first.position - 1
    assert [fact.position for fact in inside.without(0, 1).facts][:2] == [None, second.position - 3]


def test_prompt_that_fits_is_not_truncated(task, document, tokenizer):
    assert controlled(task, tokenizer, document, "truncate-middle", LENGTH) == [document] * 10


def test_bm25_finds_the_fact_and_fills_its_tokens_in_reading_order(task, document, tokenizer):
    pieces = task.pieces(tokenizer, document)
    short = controlled(task, tokenizer, document, "bm25:tokens=200", WINDOW)
    for index, one in enumerate(short):
        kept = encode(tokenizer, "".join(piece.text for piece in pieces if index in piece.golds))
        at = one.facts[0].position
        assert list(one.ids[at : at + len(kept)]) == kept
        assert 100 < len(one.ids) - len(start_tokens(tokenizer)) <= 200
        # In reading order: what is left of the document's tokens is a subsequence of them.
        rest = iter(document.ids)
        assert all(token in rest for token in one.ids)


def test_bm25_that_may_keep_everything_reads_the_document(task, document, tokenizer):
    assert controlled(task, tokenizer, document, "bm25:tokens=4k", 2 * LENGTH) == [document] * 10


@pytest.mark.parametrize("name", SPREAD)
def test_control_that_does_not_apply_says_why(tokenizer, name):
    task = make(name)
    document = task.build(tokenizer, LENGTH, seed=0, corpus="sotu")
    assert "comes from its whole text" in applies(task, document, "needle-only")
    assert "nothing that could be searched for" in applies(task, document, "bm25")
    assert applies(task, document, "truncate-middle") is None
    with pytest.raises(EvaluationError, match=f"needle-only does not apply: the answer of {name} .*leave it out"):
        controlled(task, tokenizer, document, "needle-only", WINDOW)


def test_task_without_questions_has_no_controls(tokenizer):
    task = TASKS.get("perplexity")
    document = task.build(tokenizer, WINDOW, seed=0, corpus="sotu")
    for control in CONTROLS:
        assert "perplexity asks no question" in applies(task, document, control)


@pytest.mark.parametrize(
    ("control", "window", "message"),
    [
        ("truncate-middle", 20, "the model's window is 20: nothing of the text fits"),
        ("bm25:tokens=2", WINDOW, "no piece of needle fits bm25:tokens=2; the shortest has"),
        ("bm25:tokens=1k", WINDOW, "the model's window is 1024: give a smaller number of tokens"),
        ("needle-only", 30, "the model's window is 30: "),
    ],
)
def test_window_that_is_too_small_is_an_error_in_one_line(task, document, tokenizer, control, window, message):
    with pytest.raises(EvaluationError) as error:
        controlled(task, tokenizer, document, control, window)
    assert message in str(error.value) and "\n" not in str(error.value)
