"""LongEmbed's synthetic sets: wording, lengths, places, and what is refused."""

import re

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.embedding.facts import FACTS
from ropewalk.evaluate.embedding.people import NAMES
from ropewalk.evaluate.embedding.sets import RETRIEVAL, expand

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
TASKS = RETRIEVAL.names()


def byte_tokenizer():
    """One token a byte, and none added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def merging_tokenizer():
    """Tokens that reach across words, so that those of a text are fewer than those of its words."""
    text = " ".join(corpus.paragraphs("sotu")[:40])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator([text, NOISE], trainers.BpeTrainer(vocab_size=600, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture
def build(tokenizer):
    def build(task, length=300, *, seed=0, text="sotu", with_tokenizer=tokenizer, **sizes):
        given = {"queries": 5, "candidates": 8, **sizes}
        return RETRIEVAL.get(task).build(with_tokenizer, length, seed=seed, corpus=text, **given)

    return build


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [64, 301, 2000])
def test_documents_have_the_length_that_was_asked_for(task, length, build, tokenizer) -> None:
    found = build(task, length)
    assert found.sizes == tuple(len(tokenizer(text)["input_ids"]) for text in found.documents)
    assert max(found.sizes) <= length
    assert min(found.sizes) >= length - max(4, length // 256)


@pytest.mark.parametrize("make", [byte_tokenizer, merging_tokenizer])
@pytest.mark.parametrize("task", TASKS)
def test_any_tokenizer_will_do(task, make, build) -> None:
    given = make()
    found = build(task, 700, with_tokenizer=given)
    sizes = [len(given(text)["input_ids"]) for text in found.documents]
    assert max(sizes) <= 700
    assert min(sizes) >= 660


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_before_documents_counts(task, build, tokenizer) -> None:
    found = build(task, 200, prompt="the sky is blue ")
    bare = [len(tokenizer(text)["input_ids"]) for text in found.documents]
    assert [size + 4 for size in bare] == list(found.sizes)
    assert max(found.sizes) <= 200


def test_passkey_is_worded_as_published(build) -> None:
    found = build("longembed-passkey")
    for query, gold in zip(found.queries, found.golds, strict=True):
        name = re.fullmatch(r"what is the passkey for (\w+ \w+)\?", query)[1]
        assert name in NAMES
        before, sentence, after = found.documents[gold].split("\n")
        key = re.fullmatch(rf"{name}'s pass key is (\d{{5}})\. Remember it\. \1 is the pass key for {name}\.", sentence)
        assert key is not None
        assert ((NOISE + " ") * 20).startswith(before)
        assert ((NOISE + " ") * 20).startswith(after)
    names = {re.search(r"(\w+ \w+)'s pass key", text)[1] for text in found.documents}
    assert len(names) == len(found.documents)


def test_needle_documents_differ_in_their_fact_alone(build) -> None:
    found = build("longembed-needle", 400)
    questions = dict(FACTS)
    for query, gold in zip(found.queries, found.golds, strict=True):
        assert questions[query] in found.documents[gold]
    bare = []
    for text in found.documents:
        facts = [statement for statement in questions.values() if statement in text]
        assert len(facts) == 1
        bare.append(text.replace(facts[0], "").split())
    shortest = min(bare, key=len)
    assert all(words[: len(shortest) - 1] == shortest[:-1] for words in bare)
    assert " ".join(shortest[:50]) in " ".join(corpus.load("sotu").split())


@pytest.mark.parametrize("task", TASKS)
def test_sentences_lie_one_in_each_part_of_the_text(task, build) -> None:
    found = build(task, 1500, candidates=10)
    assert sorted(int(10 * depth) for depth in found.depths) == list(range(10))
    hidden = [question for question, _ in FACTS]
    for text, depth in zip(found.documents, found.depths, strict=True):
        statement = next((one for _, one in FACTS if one in text), None) or text.split("\n")[1]
        assert text.index(statement) / len(text) == pytest.approx(depth, abs=0.08)
    assert len(hidden) == 100


@pytest.mark.parametrize("task", TASKS)
def test_seed_makes_the_set(task, build) -> None:
    assert build(task) == build(task)
    assert build(task).documents != build(task, seed=1).documents
    assert build(task).sha256(0) == build(task).sha256(0) != build(task, seed=1).sha256(0)
    assert build(task).sha256(0) != build(task).sha256(1)


def test_more_queries_begin_with_those_of_fewer(build) -> None:
    """Their numbers are their keys in the store; `random.sample` draws a few in another way than many."""
    sets = [build("longembed-needle", 100, queries=queries, candidates=60) for queries in (2, 7, 20, 60)]
    for one in sets[:-1]:
        assert one.documents == sets[-1].documents
        assert one.queries == sets[-1].queries[: len(one.queries)]
        assert one.golds == sets[-1].golds[: len(one.golds)]


def test_a_hundred_facts_are_all_different() -> None:
    assert len(FACTS) == len({question for question, _ in FACTS}) == len({statement for _, statement in FACTS}) == 100
    assert all(question.endswith("?") and statement.endswith(".") for question, statement in FACTS)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 12}, "takes [0-9]+ tokens, got a length of 12; ask for a longer one"),
        ({"task": "longembed-needle", "candidates": 101}, "has sentences for 100 documents, got 101"),
        ({"task": "longembed-needle", "text": "sotuu"}, "unknown text 'sotuu'"),
    ],
)
def test_what_cannot_be_is_refused(options, message, build) -> None:
    given = {"task": "longembed-passkey", **options}
    with pytest.raises(EvaluationError, match=message):
        build(given.pop("task"), **given)


def test_suite_is_both_tasks() -> None:
    assert expand(["longembed", "longembed-needle"]) == ["longembed-passkey", "longembed-needle"]
    with pytest.raises(EvaluationError, match="did you mean 'longembed-needle'"):
        expand(["longembed-needel"])
