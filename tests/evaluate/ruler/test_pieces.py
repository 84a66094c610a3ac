import pytest

from ropewalk.evaluate.document import encode
from ropewalk.evaluate.ruler.pieces import pieces, shorten
from ropewalk.evaluate.ruler.suite import FAMILIES, RULER

LENGTH = 2048
SPREAD = ("cwe", "fwe")
SAMPLES = [*FAMILIES.names(), *(f"{name}-compat" for name in RULER)]
CARRIED = [name for name in SAMPLES if not name.startswith(SPREAD)]


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request, generator, byte_tokenizer):
    """Of a tokenizer with one token a byte: its tokens are the text to the letter."""
    name, _, compat = request.param.partition("-")
    # The worked examples alone have more bytes than LENGTH.
    return generator(name, 6 * LENGTH, tokenizer=byte_tokenizer, mode=compat or "hardened").sample(1)


def test_pieces_are_the_context(sample):
    begin, end = sample.context
    found = pieces(sample)
    assert "".join(piece.text for piece in found) == sample.prompt[begin:end]
    assert len(found) > 5 and all(piece.text for piece in found)


def test_pieces_with_a_gold_hold_the_statements_that_carry_the_answer(sample):
    carried = " ".join(piece.text for piece in pieces(sample) if piece.golds)
    for gold in sample.golds:
        assert gold in carried
    assert (not carried) == (sample.task in SPREAD)
    # Documents are pieces with their heading; all else is a statement, or one with the cut line before it.
    assert len(carried) < sum(map(len, sample.golds)) + 60 * len(sample.golds) + 150


def test_sample_with_all_its_pieces_is_the_sample(sample, byte_tokenizer):
    assert shorten(sample, byte_tokenizer, range(len(pieces(sample)))) == sample


def test_shortened_sample_keeps_what_is_no_piece_and_the_pieces_in_order(sample, byte_tokenizer):
    found = pieces(sample)
    kept = [0, len(found) // 2, len(found) - 2]
    short = shorten(sample, byte_tokenizer, kept)
    begin, end = sample.context
    first, last = short.context
    assert short.prompt[:first] == sample.prompt[:begin]
    assert short.prompt[last:] == sample.prompt[end:]
    assert short.prompt[first:last] == "".join(found[index].text for index in kept).rstrip()
    assert list(short.ids) == encode(byte_tokenizer, short.prompt + short.answer_prefix)


@pytest.mark.parametrize("sample", CARRIED, indirect=True)
def test_sample_of_its_golds_holds_every_reference(sample, byte_tokenizer):
    kept = [index for index, piece in enumerate(pieces(sample)) if piece.golds]
    short = shorten(sample, byte_tokenizer, kept)
    assert len(short.ids) < len(sample.ids)
    first, last = short.context
    for reference in sample.references:
        assert reference in short.prompt[first:last] or reference not in sample.prompt
    assert short.golds == sample.golds
    assert [
        short.prompt[round(depth * len(short.prompt)) :].startswith(gold.rstrip())
        for depth, gold in zip(short.depths, short.golds, strict=True)
    ] == [True] * len(short.golds)


@pytest.mark.parametrize("sample", CARRIED, indirect=True)
def test_sample_without_its_golds_has_none(sample, byte_tokenizer):
    kept = [index for index, piece in enumerate(pieces(sample)) if not piece.golds][:4]
    short = shorten(sample, byte_tokenizer, kept)
    assert short.golds == short.depths == ()
