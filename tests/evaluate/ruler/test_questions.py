import hashlib
import json
from pathlib import Path

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.ruler.questions import load_hotpotqa, load_squad
from ropewalk.evaluate.unit import Setup, Unit


def test_squad_gives_answerable_questions_with_their_paragraph(questions):
    data = questions["qa_1"]
    assert len(data.questions) == len(data.paragraphs) == 60
    assert list(data.paragraphs) == sorted(data.paragraphs)
    for question in data.questions:
        assert question.answers[0] in data.paragraphs[question.golds[0]]
        assert question.context == question.golds and len(question.near) == 9
        assert not set(question.near) & set(question.golds)


def test_hotpotqa_gives_its_supporting_paragraphs_as_golds(questions):
    data = questions["qa_2"]
    assert len(data.questions) == 30 and len(data.paragraphs) == 300
    for number, question in enumerate(data.questions):
        assert len(question.context) == 10 and len(question.golds) == 2
        assert data.paragraphs[question.golds[1]] == (
            f"Title {number}-3\nStep 3 of chain {number}. It goes to place{number}end."
        )


def test_hotpotqa_without_supporting_facts_takes_all_paragraphs_as_golds(tmp_path):
    file = tmp_path / "hotpot.json"
    file.write_text(json.dumps([{"question": "q", "answer": "a", "context": [["T", ["a."]], ["U", ["b."]]]}]))
    assert load_hotpotqa(str(file)).questions[0].golds == (0, 1)


@pytest.mark.parametrize("load", [load_squad, load_hotpotqa])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no question file at"),
        ("{", "is not JSON"),
        ("[]", r"holds no question|is not a SQuAD file"),
        ('{"version": 1}', r"is not a (SQuAD|HotpotQA) file"),
        ('[{"question": "q"}]', r"is not a (SQuAD|HotpotQA) file"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": []}]}]}]}',
            "no answer|is not a",
        ),
        ("[3]", r"is not a (SQuAD|HotpotQA) file"),
    ],
)
def test_file_that_cannot_be_used_is_one_clear_line(tmp_path, load, text, message):
    file = tmp_path / "questions.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(EvaluationError, match=message) as error:
        load(str(file))
    assert "\n" not in str(error.value)


def test_other_formats_are_told_apart(files):
    with pytest.raises(EvaluationError, match="is not a HotpotQA file"):
        load_hotpotqa(files["qa_1"])
    with pytest.raises(EvaluationError, match="is not a SQuAD file"):
        load_squad(files["qa_2"])


def test_samples_of_another_file_are_other_samples(model, tokenizer, files, tmp_path):
    changed = tmp_path / "squad.json"
    changed.write_bytes(Path(files["qa_1"]).read_bytes().replace(b"word1 ", b"word2 "))
    keys = set()
    for path in (files["qa_1"], str(changed)):
        with Bench(model, tokenizer, name="tiny", setup=Setup(squad=path)) as bench:
            unit = Unit("qa_1", 512, "none", "", 512, 0, 0)
            row = bench.measure(unit, lambda stage, fraction: None)
        assert row.corpus == path and row.key.corpus_sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        keys.add(row.key)
    assert len(keys) == 2


def test_paragraphs_of_a_question_stand_whole_in_its_prompt(generator, questions):
    shared = generator("qa_2", 4096)
    for index in range(3):
        prompt = shared.sample(index).prompt
        query = prompt.split("\n\nQuestion: ")[1]
        question = next(entry for entry in questions["qa_2"].questions if entry.query == query)
        assert all(questions["qa_2"].paragraphs[place] in prompt for place in question.context)


def test_questions_come_in_an_order_of_the_seed(generator):
    asked = [[generator("qa_1", 1024, seed=seed).sample(i).references for i in range(5)] for seed in (0, 1)]
    assert asked[0] != asked[1]
    compat = generator("qa_1", 4096, mode="compat")
    assert [compat.sample(i).references[0] for i in range(3)] == ["answer0x0", "answer0x1", "answer0x2"]


def test_file_without_other_paragraphs_is_refused(generator, tmp_path):
    file = tmp_path / "hotpot.json"
    file.write_text(json.dumps([{"question": "q", "answer": "a", "context": [["T", ["a."]]]}]))
    with pytest.raises(EvaluationError, match="give a file with more"):
        generator("qa_2", 1024, questions=load_hotpotqa(str(file))).sample(0)
