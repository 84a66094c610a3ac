import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.document import encode
from ropewalk.evaluate.tasks import needle
from ropewalk.evaluate.tasks.facts import KINDS


@pytest.mark.parametrize("length", [511, 1024, 4096])
@pytest.mark.parametrize("seed", [0, 1])
def test_document_holds_every_fact_and_fills_its_length(tokenizer, length, seed):
    document = needle.build(tokenizer, length, seed=seed, corpus="sotu")
    longest = max(len(fact.query) + len(fact.answer_ids) for fact in document.facts)
    assert len(document.ids) == len(document.scored) == length - longest - needle.NEW_TOKENS
    assert length < 4096 or len(document.ids) >= 0.99 * length
    assert {fact.prefix for fact in document.facts} == {kind.prefix for kind in KINDS}
    for fact in document.facts:
        sentence = encode(tokenizer, f"{fact.prefix} {fact.answer}.\n\n")
        place = slice(fact.position, fact.position + len(sentence))
        assert list(document.ids[place]) == sentence
        assert not any(document.scored[place])
    assert sum(document.scored) == len(document.ids) - sum(
        len(encode(tokenizer, f"{fact.prefix} {fact.answer}.\n\n")) for fact in document.facts
    )


def test_document_without_its_facts_is_the_text(tokenizer):
    document = needle.build(tokenizer, 2048, seed=3, corpus="sotu")
    texts = corpus.paragraphs("sotu")[document.start :][:100]
    running = [token for text in texts for token in encode(tokenizer, text + "\n\n")]
    kept = [token for token, counts in zip(document.ids, document.scored, strict=True) if counts]
    assert kept == running[: len(kept)]


def test_facts_stand_in_order_at_all_depths(tokenizer):
    document = needle.build(tokenizer, 8192, seed=0, corpus="sotu")
    positions = [fact.position for fact in document.facts]
    assert positions == sorted(positions)
    assert sum(position < len(document.ids) / 2 for position in positions) in (4, 5, 6)


def test_documents_differ_by_seed_only(tokenizer):
    first, again, other = (needle.build(tokenizer, 1024, seed=seed, corpus="sotu") for seed in (0, 0, 1))
    assert first == again
    assert first.ids != other.ids


def test_answers_of_a_kind_differ_in_their_first_token(tokenizer):
    document = needle.build(tokenizer, 1024, seed=0, corpus="sotu")
    for fact in document.facts:
        assert len(set(fact.candidate_ids)) == len(fact.candidate_ids) >= needle.MIN_CANDIDATES
        assert fact.candidate_ids[fact.correct] == fact.answer_ids[0]


def test_candidates_do_not_begin_one_another():
    for kind in KINDS:
        assert len(kind.candidates) in (12, 13)
        for word in kind.candidates:
            assert [other for other in kind.candidates if other.startswith(word)] == [word]


def test_document_too_short_for_its_facts_is_refused_with_the_length_to_ask_for(tokenizer):
    with pytest.raises(EvaluationError, match=r"ask for \d+ tokens or more") as error:
        needle.build(tokenizer, 100, seed=0, corpus="sotu")
    enough = int(str(error.value).split("ask for ")[1].split()[0])
    assert len(needle.build(tokenizer, enough, seed=0, corpus="sotu").ids) < enough
    with pytest.raises(EvaluationError):
        needle.build(tokenizer, enough - 1, seed=0, corpus="sotu")


def test_text_that_is_too_short_is_refused_with_what_is_missing(tokenizer, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(["the people of the United States"] * 50))
    with pytest.raises(EvaluationError, match=r"short\.txt is too short: 300 tokens, \d+ fewer than the \d+"):
        needle.build(tokenizer, 1024, seed=0, corpus=str(path))
