"""Key tokens equal those of a computation that cuts the context of every token by itself."""

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import bench
from ropewalk.evaluate.tasks import TASKS, longppl
from ropewalk.evaluate.tasks.longppl import LongPPL, covered
from ropewalk.evaluate.unit import Setup, Unit
from tests.fixture.recipe import (
    FIRST_QUERY,
    FIRST_VALUE,
    KEYS,
    PRETRAINED_LENGTH,
    TINY,
    VALUES,
    VOCABULARY,
    evaluation_sequences,
    training_sequences,
)

SHORT, STEP = 64, 16
METHODS = ("none", "self-extend:group=4,window=64", "yarn")


@pytest.fixture(scope="module")
def trained():
    """The fixture that finds needles: a value can be told only by who sees its needle. Its window is 128 tokens."""
    return LlamaForCausalLM.from_pretrained(TINY).eval()


def words():
    """A tokenizer of the fixture's tokens: "w7" is token 7."""
    vocabulary = {f"w{token}": token for token in range(VOCABULARY)}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=whole)


@pytest.fixture(scope="module")
def spelled():
    """A tokenizer of the same texts with other tokens: one a byte, and a start token before every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    whole = Tokenizer(models.BPE({character: index for index, character in enumerate([*alphabet, "<s>"])}, []))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", len(alphabet))])
    return PreTrainedTokenizerFast(tokenizer_object=whole, bos_token="<s>")


def written(file, tokens):
    file.write_text("\n\n".join(" ".join(f"w{token}" for token in row) for row in tokens.tolist()), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Paragraphs of 128 tokens with eight questions each for a needle before them."""
    generator = torch.Generator().manual_seed(0)
    sequences = training_sequences(12, PRETRAINED_LENGTH, generator)
    return written(tmp_path_factory.mktemp("text") / "own.txt", sequences.tokens)


def nats(model, context, token):
    """-log p(token | context), in one forward of its own, float64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(context)])).logits[0, -1].double()
    return (torch.logsumexp(logits, 0) - logits[token]).item()


def cut(token, length, window):
    """Where the long context begins: an eighth of the window beyond it, or less at the end, shares a beginning."""
    if token < window:
        return 0
    stride = window // 8
    end = min(token - (token - window) % stride + stride, length)
    return end - window


def by_hand(model, ids, *, window, short, step):
    """Key tokens, every token with contexts of its own: where its step begins decides where they begin."""
    keys = []
    for token in range(short, len(ids)):
        begin = token - (token - short) % step
        far = nats(model, ids[cut(token, len(ids), window) : token], ids[token])
        near = nats(model, ids[begin - short : token], ids[token])
        if near - far > 2 and far < 2:
            keys.append(token)
    return keys


def built(length, text, *, seed=0, **fields):
    task = LongPPL(**{"short": SHORT, "step": STEP} | fields)
    return task, task.build(words(), length, seed=seed, corpus=text)


@pytest.mark.parametrize(("length", "seed"), [(128, 0), (128, 2), (250, 0), (250, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_longppl_is_that_of_tokens_with_contexts_of_their_own(trained, text, report, method, length, seed):
    """Within the evaluator's window and beyond it, under any method: key tokens are the stock model's."""
    task, document = built(length, text, seed=seed)
    expected = by_hand(trained, document.ids, window=PRETRAINED_LENGTH, short=SHORT, step=STEP)
    with ropewalk.extend(trained, method, target_length=length):
        sample = task.measure(trained, words(), document, report=report)
        losses = [nats(trained, document.ids[:key], document.ids[key]) for key in expected]
    assert expected
    assert sample.details["key_tokens"] == expected
    assert sample.n == len(expected)
    assert sample.scores == pytest.approx(losses, abs=1e-4)
    assert sample.details["longppl"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-3)
    assert (sample.details["evaluator"], sample.details["evaluator_window"]) == (None, PRETRAINED_LENGTH)


def test_key_tokens_are_the_answers_whose_needles_are_far(trained, report, tmp_path):
    """One question at the end of each text: its value is key exactly where its needle is out of the short context."""
    sequences = evaluation_sequences(24, PRETRAINED_LENGTH, torch.Generator().manual_seed(3))
    far, found = [], []
    for index, row in enumerate(sequences.tokens):
        ids = row.tolist()
        key = ids[-2] - FIRST_QUERY
        assert 0 <= key < KEYS
        binds = KEYS * 2 + key * VALUES + ids[-1] - FIRST_VALUE
        far.append(ids.index(binds) < 128 - STEP - SHORT)
        task, document = built(128, written(tmp_path / f"{index}.txt", row[None]))
        assert list(document.ids) == ids
        try:
            keys = task.measure(trained, words(), document, report=report).details["key_tokens"]
        except EvaluationError as error:
            assert "needs a long context" in str(error)
            keys = []
        found.append(127 in keys)
    assert sum(far) >= 6 and sum(found) >= 6
    assert [a for a, b in zip(far, found, strict=True) if b] == [True] * sum(found)
    assert sum(found) >= 0.7 * sum(far)


def test_evaluator_is_asked_once_for_a_document_whatever_the_method(trained, text, report, monkeypatch):
    task, document = built(250, text)
    asked = []
    original = longppl.key_tokens
    monkeypatch.setattr(longppl, "key_tokens", lambda *a, **k: asked.append(1) or original(*a, **k))
    scores = set()
    for method in METHODS:
        with ropewalk.extend(trained, method, target_length=250):
            scores.add(task.measure(trained, words(), document, report=report).scores)
    assert len(asked) == 1 and len(scores) == len(METHODS)
    other = task.build(words(), 250, seed=1, corpus=text)
    task.measure(trained, words(), other, report=report)
    assert len(asked) == 2


def test_key_tokens_are_found_before_the_clock_of_a_method_runs(trained, text, monkeypatch):
    asked, began = [], []
    original, peak = longppl.key_tokens, bench.Peak
    monkeypatch.setattr(longppl, "key_tokens", lambda *a, **k: asked.append(1) or original(*a, **k))
    monkeypatch.setattr(bench, "Peak", lambda device: began.append(len(asked)) or peak(device))
    with bench.Bench(trained, words(), name="tiny", setup=Setup(corpus=text)) as made:
        made._tasks["longppl"] = LongPPL(short=SHORT, step=STEP)
        for method in METHODS:
            made.measure(Unit("longppl", 250, method, "", 250, 0, 0), lambda stage, fraction: None)
    assert began == [1] * len(METHODS) and len(asked) == 1


def test_method_is_attached_again_after_the_evaluator(trained, text, report):
    task, document = built(250, text)
    with ropewalk.extend(trained, "self-extend:group=4,window=64", target_length=250) as extension:
        before = nats(trained, document.ids[:-1], document.ids[-1])
        task.measure(trained, words(), document, report=report)
        assert nats(trained, document.ids[:-1], document.ids[-1]) == before
    with pytest.raises(ropewalk.errors.ModelError, match="not attached any more"), extension.lifted():
        pass
    assert nats(trained, document.ids[:-1], document.ids[-1]) != before


def test_another_model_marks_the_text_that_its_key_tokens_stand_for(trained, model, text, report, spelled, tmp_path):
    """The evaluated model spells: all letters of a word are key where the evaluator's word is."""
    folder = tmp_path / "evaluator"
    trained.save_pretrained(folder)
    words().save_pretrained(folder)
    task = LongPPL(str(folder), short=SHORT, step=STEP)
    length = 600
    document = task.build(spelled, length, seed=0, corpus=text)
    sample = task.measure(model, spelled, document, report=report)

    theirs = words()(document.text, add_special_tokens=False, return_offsets_mapping=True)
    keys = by_hand(trained, theirs["input_ids"], window=PRETRAINED_LENGTH, short=SHORT, step=STEP)
    assert keys
    expected = []
    for key in keys:
        begin, end = theirs["offset_mapping"][key]
        expected += range(begin, end + 1)  # with the space before it; a start token stands before the text
    assert sample.details["key_tokens"] == expected
    assert sample.scores == pytest.approx(
        [nats(model, document.ids[:at], document.ids[at]) for at in expected], abs=1e-4
    )
    assert sample.details["evaluator"] == str(folder)
    assert str(folder) in task.protocol and task.protocol != TASKS.get("longppl").protocol


def test_token_is_covered_where_all_of_its_text_is():
    ends = [0, 3, 3, 5, 9]
    assert covered(ends, [(0, 5)]) == [1, 3]
    assert covered(ends, [(2, 9)]) == [3, 4]
    assert covered(ends, [(0, 2), (2, 3), (5, 9)]) == [1, 4]
    assert covered(ends, []) == []


def test_contexts_follow_the_window_of_the_evaluator(trained, text, report):
    """The paper's 4096 and 1024 tokens, or 1/8 and 1/32 of the window where that is less."""
    task, document = built(250, text, short=None, step=None)
    found = task.measure(trained, words(), document, report=report).details
    assert (found["short"], found["step"]) == (PRETRAINED_LENGTH // 8, PRETRAINED_LENGTH // 32)
    assert task.protocol == TASKS.get("longppl").protocol
    assert "itself-stock-in-window,short=min(4096,window/8)" in task.protocol


def test_what_has_no_long_contexts_is_refused(trained, text, report):
    task, document = built(95, text)
    with pytest.raises(EvaluationError, match="ask for 96 tokens or more"):
        task.measure(trained, words(), document, report=report)
    task, document = built(250, text, short=100)
    with pytest.raises(EvaluationError, match="trained on 128 tokens, wanted 151 or more"):
        task.measure(trained, words(), document, report=report)
    task, document = built(128, text, gain=1000.0)
    with pytest.raises(EvaluationError, match="none of the 128 tokens of document 0 needs a long context"):
        task.measure(trained, words(), document, report=report)
