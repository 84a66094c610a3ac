import pytest
import torch

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import encode
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import TASKS, Question
from ropewalk.evaluate.tasks.reply import draft, reply

NAMES = ["passkey", "needle-grid", "needle-four", "needle-string"]


def never(said):
    return False


@pytest.mark.parametrize("name", NAMES)
def test_answers_from_one_read_are_those_of_reading_anew(model, bpe, name):
    """Greedy tokens, all of them, against `generate` on document and question read together."""
    model.generation_config.eos_token_id = None
    document = TASKS.get(name).build(bpe, 1300, seed=0, corpus="sotu")
    cache = prefill(model, document.ids).cache
    for question in document.frame.questions:
        ids = torch.tensor([[*document.ids, *encode(bpe, question.text)]])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=question.new_tokens, do_sample=False
        )
        said = reply(model, bpe, cache, question, enough=never)
        assert said.text == bpe.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        assert cache.get_seq_length() == len(document.ids)


def test_cache_is_left_exactly_as_it_was(model, bpe):
    document = TASKS.get("needle-grid").build(bpe, 1300, seed=0, corpus="sotu")
    cache = prefill(model, document.ids).cache
    before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
    first = [reply(model, bpe, cache, question, enough=never) for question in document.frame.questions]
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
    backwards = [reply(model, bpe, cache, question, enough=never) for question in reversed(document.frame.questions)]
    assert backwards[::-1] == first


@pytest.mark.parametrize("name", ["needle-grid", "needle-four"])
def test_log_probabilities_equal_an_uncached_computation(model, bpe, name):
    document = TASKS.get(name).build(bpe, 1300, seed=1, corpus="sotu")
    cache = prefill(model, document.ids).cache
    for question in document.frame.questions[:3]:
        said = reply(model, bpe, cache, question, enough=never)
        ids = [*document.ids, *encode(bpe, question.text)]
        expected = []
        for index, value in enumerate(question.references):
            ids += encode(bpe, ",") if index else []
            answer = encode(bpe, f" {value}")
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*ids, *answer]])).logits[0].double().log_softmax(-1)
            expected.append(sum(logits[len(ids) - 1 + place, token].item() for place, token in enumerate(answer)))
            ids += answer
        assert said.log_probabilities == pytest.approx(expected, abs=1e-3)


def test_generation_stops_when_the_score_is_decided_or_the_model_ends(bpe, answering):
    task = TASKS.get("needle-four")
    document = task.build(bpe, 1300, seed=0, corpus="sotu")
    [question] = document.frame.questions
    values = question.references
    model = answering(document, [f" {', '.join(values)} and many more"])
    cache = prefill(model, document.ids).cache
    decided = reply(model, bpe, cache, question, enough=lambda said: task.enough(question, said))
    assert task.grade(document, 0, decided.text) == 1.0 and "many" not in decided.text
    whole = reply(model, bpe, cache, question, enough=never)
    assert whole.text == f" {', '.join(values)} and many more"
    assert all(value > -0.1 for value in whole.log_probabilities)


def test_draft_gives_every_token_of_a_value_to_it(bpe):
    made = draft(bpe, Question("The numbers are", "", ("12", "3456"), 8))
    assert bpe.decode(made.query) == "The numbers are" and bpe.decode(made.answer) == " 12, 3456"
    for index, text in ((0, " 12"), (1, " 3456"), (-1, ",")):
        owned = [token for token, owner in zip(made.answer, made.owners, strict=True) if owner == index]
        assert bpe.decode(owned) == text


def test_tokenizer_that_joins_question_and_answer_is_refused(bpe):
    class Joining:
        def __call__(self, text, **options):
            return {"input_ids": [len(text)]}

    with pytest.raises(EvaluationError, match="joins ' 12' with the text before it"):
        draft(Joining(), Question("The numbers are", "", ("12",), 8))
