import pytest
import torch

from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import needle
from ropewalk.evaluate.tasks.answer import SHOWN_TOKENS, ask


@pytest.fixture
def document(tokenizer):
    return needle.build(tokenizer, 500, seed=0, corpus="sotu")


@pytest.fixture
def told(model, document):
    """A model that answers every other query correctly, whatever it has read."""
    known = {fact.query[-2:]: fact.answer_ids[0] for fact in document.facts[::2]}

    def steer(_module, _args, kwargs, output):
        ids = kwargs["input_ids"][0].tolist()
        rows = output.logits.shape[1]
        for row in range(rows):
            end = len(ids) - rows + row + 1
            if (answer := known.get(tuple(ids[max(0, end - 2) : end]))) is not None:
                output.logits[0, row, answer] += 1000.0

    model.register_forward_hook(steer, with_kwargs=True)
    return model


def test_log_probabilities_equal_an_uncached_computation(model, tokenizer, document):
    answers = ask(model, tokenizer, prefill(model, document.ids).cache, document)
    for fact, answer in zip(document.facts, answers, strict=True):
        ids = [*document.ids, *fact.query, *fact.answer_ids]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        expected = sum(logits[len(ids) - len(fact.answer_ids) - 1 + i, t] for i, t in enumerate(fact.answer_ids)).item()
        assert answer.log_probability == pytest.approx(expected, abs=1e-4)
        assert answer.distance == len(document.ids) - fact.position


def test_generated_text_is_that_of_generate(model, tokenizer, document):
    [shown, *_] = ask(model, tokenizer, prefill(model, document.ids).cache, document, show=0)
    ids = torch.tensor([[*document.ids, *document.facts[0].query]])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=SHOWN_TOKENS, do_sample=False, eos_token_id=None
    )
    assert shown.text == tokenizer.decode(out[0, ids.shape[1] :])


def test_retrieved_are_the_facts_that_are_answered(told, tokenizer, document):
    answers = ask(told, tokenizer, prefill(told, document.ids).cache, document)
    assert [answer.retrieved for answer in answers] == [index % 2 == 0 for index in range(10)]
    assert all(answer.chosen for answer in answers[::2])


def test_asking_leaves_the_cache_as_it_was(model, tokenizer, document):
    cache = prefill(model, document.ids).cache
    first = ask(model, tokenizer, cache, document, show=3)
    assert cache.get_seq_length() == len(document.ids)
    assert ask(model, tokenizer, cache, document, show=3) == first
