from dataclasses import replace

import pytest

from ropewalk.evaluate.controlled import measure_controlled
from ropewalk.evaluate.controls import controlled
from ropewalk.evaluate.ruler.task import Ruler
from ropewalk.evaluate.tasks import TASKS

WINDOW = 512
LENGTH = 1500


def silent(stage, fraction):
    pass


@pytest.fixture
def task():
    return TASKS.get("needle")


@pytest.fixture
def document(task, tokenizer):
    return task.build(tokenizer, LENGTH, seed=2, corpus="sotu")


@pytest.fixture
def reader(model, document):
    """A model that answers a query where the text that it was asked about holds the fact; and those texts."""
    known = {fact.query[-3:]: fact for fact in document.facts}
    texts, read = {}, []

    def steer(_module, _args, kwargs, output):
        ids, cache = kwargs["input_ids"][0].tolist(), kwargs["past_key_values"]
        if cache.get_seq_length() == len(ids):
            # Kept alive, or a later cache could have its id.
            texts[id(cache)] = cache, ids
            return
        text = texts[id(cache)][1]
        if not read or read[-1] is not text:
            read.append(text)
        rows = output.logits.shape[1]
        for row in range(rows):
            end = len(ids) - rows + row + 1
            fact = known.get(tuple(ids[max(0, end - 3) : end]))
            if fact and holds(text, (*fact.query, *fact.answer_ids)):
                output.logits[0, row, fact.answer_ids[0]] += 1000.0

    model.register_forward_hook(steer, with_kwargs=True)
    return model, read


def holds(ids, part):
    return any(tuple(ids[at : at + len(part)]) == part for at in range(len(ids)))


def measured(model, tokenizer, task, document, control, report=silent, window=WINDOW):
    return measure_controlled(model, tokenizer, task, document, control, window=window, report=report)


def test_truncated_prompt_is_read_once_and_scores_what_it_holds(reader, task, tokenizer, document):
    model, read = reader
    sample = measured(model, tokenizer, task, document, "truncate-middle")
    [short] = {one.ids for one in controlled(task, tokenizer, document, "truncate-middle", WINDOW)}
    assert read == [list(short)]
    expected = [float(holds(short, (*fact.query, *fact.answer_ids))) for fact in document.facts]
    assert list(sample.scores) == expected and 0 < sum(expected) < 10
    assert sample.n == 10
    assert sample.details["tokens"] == [len(short)] * 10
    assert sample.details["pieces"] == sample.details["golds_kept"] == [None] * 10
    assert [answer["answer"] for answer in sample.details["answers"]] == [fact.answer for fact in document.facts]
    assert [answer["distance"] is not None for answer in sample.details["answers"]] == list(map(bool, expected))


def test_scores_of_several_prompts_stand_in_the_order_of_the_questions(reader, task, tokenizer, document):
    model, read = reader
    whole = task.measure(model, tokenizer, document, report=silent)
    sample = measured(model, tokenizer, task, document, "needle-only")
    assert whole.scores == sample.scores == (1.0,) * 10
    short = controlled(task, tokenizer, document, "needle-only", WINDOW)
    assert read == [list(document.ids), *(list(one.ids) for one in short)]
    details = sample.details
    assert [answer["answer"] for answer in details["answers"]] == [fact.answer for fact in document.facts]
    assert details["tokens"] == [len(one.ids) for one in short]
    assert details["golds_kept"] == [1.0] * 10
    pieces = task.pieces(tokenizer, document)
    assert [[pieces[index].golds for index in kept] for kept in details["pieces"]] == [
        [frozenset({question})] for question in range(10)
    ]
    assert details["log_probability"] == pytest.approx(
        sum(answer["log_probability"] for answer in details["answers"]) / 10
    )


def test_question_whose_needle_is_not_kept_is_missed(reader, task, tokenizer, document, monkeypatch):
    model, _ = reader
    questions = task.questions(document)
    # The last five are searched for by the words of others, and there is room for one sentence.
    search = [questions[index].search for index in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    misled = tuple(replace(question, search=words) for question, words in zip(questions, search, strict=True))
    honest = type(task).questions
    monkeypatch.setattr(
        type(task), "questions", lambda self, asked: misled if asked is document else honest(self, asked)
    )
    sample = measured(model, tokenizer, task, document, "bm25:tokens=15")
    assert sample.scores == (1.0,) * 5 + (0.0,) * 5
    assert sample.details["golds_kept"] == [1.0] * 5 + [0.0] * 5
    assert [answer["distance"] is None for answer in sample.details["answers"]] == [False] * 5 + [True] * 5


@pytest.mark.parametrize("control", ["truncate-middle", "bm25:tokens=2k"])
def test_control_that_takes_nothing_away_is_the_stock_model(reader, task, tokenizer, document, control):
    model, read = reader
    whole = task.measure(model, tokenizer, document, report=silent)
    sample = measured(model, tokenizer, task, document, control, window=2048)
    assert len(read) == 2 and read[0] == read[1]
    assert sample.scores == whole.scores
    assert sample.details["answers"] == whole.details["answers"]


def test_depths_are_those_of_the_whole_document(model, task, tokenizer, document):
    for control in ("truncate-middle", "needle-only"):
        depths = measured(model, tokenizer, task, document, control).details["depths"]
        assert depths == pytest.approx([fact.position / len(document.ids) for fact in document.facts], abs=0.02)


def test_losses_by_position_of_a_shortened_text_are_left_out(model, task, tokenizer, document):
    for control in ("truncate-middle", "needle-only"):
        assert not any("loss" in name for name in measured(model, tokenizer, task, document, control).details)


def test_progress_of_every_stage_grows_to_its_end(model, task, tokenizer, document):
    seen = {"read": [], "ask": []}
    measured(model, tokenizer, task, document, "needle-only", lambda stage, done: seen[stage].append(done))
    for fractions in seen.values():
        assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)


def test_ruler_under_a_control_answers_its_one_question(model, tokenizer):
    task = Ruler("qa_ledger")
    document = task.build(tokenizer, LENGTH, seed=3, corpus="sotu")
    sample = measured(model, tokenizer, task, document, "bm25")
    [short] = controlled(task, tokenizer, document, "bm25", WINDOW)
    direct = task.measure(model, tokenizer, short, report=silent)
    assert sample.scores == direct.scores and sample.n == 1
    assert sample.details["prediction"] == direct.details["prediction"]
    assert sample.details["references"] == list(document.sample.references)
    assert sample.details["control"] == f"bm25:tokens={WINDOW // 8}"
    assert sample.details["tokens"] == [len(short.ids)]
    # The beginning of a piece, so a little before the statement's own place in the prompt.
    assert sample.details["depths"] == pytest.approx(document.sample.depths, abs=0.05)
