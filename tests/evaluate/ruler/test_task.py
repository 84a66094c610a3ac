import pytest
import torch

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler import words
from ropewalk.evaluate.ruler.sample import sample
from ropewalk.evaluate.ruler.task import Ruler
from ropewalk.evaluate.tasks import TASKS


def report(stage, fraction):
    assert stage in ("read", "ask") and 0 <= fraction <= 1.001


def test_tasks_are_not_yet_among_those_of_eval():
    assert "vt" not in TASKS.names()


@pytest.mark.parametrize("mode", ["hardened", "compat"])
def test_documents_of_a_run_read_the_text_once_and_are_those_made_alone(tokenizer, tmp_path, monkeypatch, mode):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"Sentence {number} ends here." for number in range(4000)))
    loads, load = [], words.corpora.load
    monkeypatch.setattr(words.corpora, "load", lambda name: loads.append(name) or load(name))
    made = [
        Ruler(name, mode=mode).build(tokenizer, 1024, seed=7000 + index, corpus=str(path))
        for index in range(3)
        for name in ("niah_single_2", "niah_multikey_1")
    ]
    assert loads == [str(path)]
    alone = sample("niah_multikey_1", tokenizer, 1024, seed=7, index=2, mode=mode, corpus=str(path))
    assert made[-1].sample == alone


def test_the_one_question_ends_the_text(tokenizer, essays):
    task = Ruler("niah_multiquery")
    document = task.build(tokenizer, 1024, seed=3, corpus=essays)
    [question] = task.questions(document)
    assert question.references == document.sample.references and question.new_tokens == 128
    assert question.text == "" and question.search in task.text(tokenizer, document)[-300:]
    assert task.grade(document, 0, " ".join(question.references[:2])) == 0.5
    assert not task.spread(document)
    assert task.spread(Ruler("fwe").build(tokenizer, 1024, seed=3, corpus=essays))


@pytest.mark.parametrize("name", ["niah_single_1", "vt", "qa_ledger"])
def test_document_is_the_sample_and_counts_no_loss(tokenizer, essays, name):
    task = Ruler(name)
    document = task.build(tokenizer, 1024, seed=42_003, corpus=essays)
    assert (document.sample.seed, document.sample.index) == (42, 3)
    assert document.ids == document.sample.ids and not any(document.scored)
    assert len(document.scored) == len(document.ids)


def test_answer_is_what_generate_gives(model, tokenizer, essays):
    task = Ruler("niah_single_1")
    document = task.build(tokenizer, 512, seed=1, corpus=essays)
    model.generation_config.eos_token_id = None
    measured = task.measure(model, tokenizer, document, report=report)
    ids = torch.tensor([document.ids])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=128, do_sample=False)
    expected = tokenizer.decode(whole[0, len(document.ids) :], skip_special_tokens=True)
    assert measured.details["prediction"] == expected and measured.details["generated"] == 128
    assert measured.scores == (document.sample.score(measured.details["prediction"]),)
    assert measured.n == 1 and measured.details["tokens"] == len(document.ids)


@pytest.mark.parametrize("ends", [0, [5, 0]])
def test_answer_ends_at_an_end_token(model, tokenizer, essays, ends):
    task = Ruler("qa_ledger")
    document = task.build(tokenizer, 512, seed=1, corpus=essays)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all logits are equal: greedy takes token 0
    model.generation_config.eos_token_id = None
    assert task.measure(model, tokenizer, document, report=report).details["generated"] == 32
    model.generation_config.eos_token_id = ends
    ended = task.measure(model, tokenizer, document, report=report)
    assert ended.details["generated"] == 0 and ended.details["prediction"] == "" and ended.scores == (0.0,)


def test_name_metric_and_protocol_are_those_of_the_task():
    assert (Ruler("vt").metric, Ruler("vt").protocol) == ("string_match_all", "ruler-hardened/1")
    assert Ruler("qa_1", mode="compat").protocol == "ruler-nvidia-c3f5e3b/2"
    assert Ruler("qa_ledger").protocol == "ropewalk-qa/1"
    with pytest.raises(EvaluationError, match="unknown RULER task"):
        Ruler("qa_3")
