"""Running text is exactly the corpus, never twice, and every token knows its bytes."""

import random
from itertools import accumulate

import pytest
from transformers import PreTrainedTokenizer

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.document import encode, start_tokens
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.tasks.running import running_text, token_ends

# Characters of one to four bytes; none of the paragraphs is in the text that the tokenizer was trained on.
PARAGRAPHS = [
    "Der Wärter läßt die Tür für fünf Öfen offen; 'naïve' façades, señor, déjà vu.",
    "北京的冬天很冷, and 東京 is no warmer: 水が凍る.",
    "Grin 😀, rocket 🚀, flags 🇩🇪 and a combined é.",
    "Plain words end it here, with 1234 digits and no accents at all.",
]


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python alone, one token a character: it says nothing of places in the text."""

    vocab_size = 0x110000
    model_input_names = ("input_ids",)

    def get_vocab(self):
        return {}

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token)

    def _convert_id_to_token(self, index):
        return chr(index)


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("\n\n".join(PARAGRAPHS), encoding="utf-8")
    return str(file)


def total(tokenizer, name):
    """Tokens of a whole corpus, by paragraphs."""
    return sum(len(encode(tokenizer, paragraph + "\n\n")) for paragraph in corpus.paragraphs(name))


def build(tokenizer, length, name, *, seed=0):
    begin = start_tokens(tokenizer)
    return running_text(tokenizer, length, begin=begin, rng=random.Random(seed), seed=seed, corpus=name)


@pytest.mark.parametrize("which", ["bpe", "bytes_only"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sizes_are_the_bytes_that_tokens_decode_to(request, text, which, seed):
    tokenizer = request.getfixturevalue(which)
    length = total(tokenizer, text) - 3
    document = build(tokenizer, length, text, seed=seed)
    begin = len(start_tokens(tokenizer))
    upto = list(accumulate(document.sizes()))
    for place in range(begin, length):
        said = tokenizer.decode(document.ids[begin : place + 1], clean_up_tokenization_spaces=False)
        if "\ufffd" not in said:  # else a token is a part of a character
            assert upto[place] == len(said.encode("utf-8"))
    assert upto[-1] == len(document.text.encode("utf-8"))
    assert document.sizes()[:begin] == [0] * begin


def test_text_is_the_corpus_from_its_paragraph_on(bpe):
    document = build(bpe, 3000, "sotu", seed=5)
    expected = "\n\n".join(corpus.paragraphs("sotu")[document.start :][:200])
    assert document.text.endswith("\n\n")
    assert expected.startswith(document.text.removesuffix("\n\n"))
    assert len(document.ids) == len(document.scored) == len(document.ends) == 3000


@pytest.mark.parametrize("which", ["bpe", "bytes_only"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_text_that_would_repeat_is_refused_with_the_tokens_that_are_missing(request, text, which, seed):
    tokenizer = request.getfixturevalue(which)
    of_text = total(tokenizer, text)
    have = of_text + len(start_tokens(tokenizer))
    document = build(tokenizer, have, text, seed=seed)
    assert sorted(document.text.split("\n\n")) == sorted([*PARAGRAPHS, ""])
    with pytest.raises(
        EvaluationError, match=rf"{of_text} tokens, 7 fewer than the {of_text + 7} .*give a longer text"
    ):
        build(tokenizer, have + 7, text, seed=seed)


@pytest.mark.parametrize(
    "task", ["perplexity", "perplexity-sliding", "perplexity-yarn", "perplexity-chunkllama", "longppl"]
)
def test_every_perplexity_task_refuses_text_that_would_repeat(bpe, text, task):
    with pytest.raises(EvaluationError, match=r"too short: \d+ tokens, \d+ fewer than the \d+"):
        TASKS.get(task).build(bpe, 4096, seed=0, corpus=text)


@pytest.mark.parametrize("which", ["bpe", "bytes_only"])
def test_document_without_some_tokens_has_the_text_of_the_others(request, which):
    tokenizer = request.getfixturevalue(which)
    document = build(tokenizer, 400, "sotu")
    short = document.without(100, 250)
    begin = len(start_tokens(tokenizer))
    kept = (*document.ids[:100], *document.ids[250:])
    assert short.ids == kept and short.shortened
    assert short.text == tokenizer.decode(kept[begin:], clean_up_tokenization_spaces=False)
    assert short.sizes() == document.sizes()[:100] + document.sizes()[250:]


def test_tokenizer_that_gives_no_places_has_no_sizes(text):
    tokenizer = Letters()
    document = build(tokenizer, 150, text)
    assert not tokenizer.is_fast and document.sizes() is None and document.without(1, 5).sizes() is None


def test_white_space_that_no_token_holds_belongs_to_the_token_after_it(tokenizer):
    sentence = "The city is red.\n\n"
    assert [sentence[:end].split()[-1] for end in token_ends(tokenizer, sentence)] == [
        "The",
        "city",
        "is",
        "red",
        "red.",
    ]
    assert token_ends(tokenizer, sentence)[-1] == len(sentence)
    assert token_ends(tokenizer, "") == []
