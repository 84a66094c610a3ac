"""Every sliding protocol equals its source's loop, written out token by token."""

import json
import math

import pytest
import torch

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.evaluate.prefill import Prefill
from ropewalk.evaluate.run import evaluate
from ropewalk.evaluate.tasks import TASKS, sliding
from ropewalk.evaluate.tasks.sliding import Sliding

NAMES = ("perplexity-sliding", "perplexity-yarn", "perplexity-chunkllama")
WINDOW, STRIDE, STRIDES = 29, 7, 3


def small(name, **changed):
    """The registered task of that name with small windows."""
    task = TASKS.get(name)
    fields = {"stride": STRIDE, "strides": STRIDES, "scored": task.scored, "average": task.average, "start": task.start}
    return Sliding(name, **fields | changed)


def nats(model, context, token):
    """-log p(token | context), in one forward of its own, float64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(context)])).logits[0, -1].double()
    return (torch.logsumexp(logits, 0) - logits[token]).item()


def by_hand(model, text, start, name):
    """The score, its tokens' losses, and the text indices that they are of (often more than once).

    Args:
        text: token ids, without a start token.
        start: the start token's id, or None.
    """
    width = WINDOW if start is None else WINDOW - 1
    windows, where = [], []
    seen = 0
    for begin in range(0, STRIDES * STRIDE + 1, STRIDE):
        end = begin + width
        losses = []
        for token in range(begin, end):
            context = ([] if start is None else [start]) + list(text[begin:token])
            if context and (name == "perplexity-chunkllama" or token >= seen):
                losses.append(nats(model, context, text[token]))
                where.append(token)
        windows.append(losses)
        seen = end
    every = [loss for losses in windows for loss in losses]
    if name == "perplexity-sliding":
        return sum(every) / len(every), every, where
    return sum(sum(losses) / len(losses) for losses in windows) / len(windows), every, where


@pytest.mark.parametrize("which", ["bpe", "bytes_only"])
@pytest.mark.parametrize("method", ["none", "self-extend:group=4,window=8"])
@pytest.mark.parametrize("name", NAMES)
def test_score_is_that_of_every_token_by_itself(request, model, report, name, method, which):
    tokenizer = request.getfixturevalue(which)
    task = small(name)
    document = task.build(tokenizer, WINDOW, seed=1, corpus="sotu")
    assert len(document.ids) == WINDOW + STRIDE * STRIDES
    starts = which == "bpe" and name != "perplexity-chunkllama"
    assert (document.ids[0] == tokenizer.bos_token_id) == starts
    text = document.ids[1:] if starts else document.ids
    with ropewalk.extend(model, method, target_length=WINDOW):
        sample = task.measure(model, tokenizer, document, report=report)
        expected, every, where = by_hand(model, text, tokenizer.bos_token_id if starts else None, name)

    assert sum(sample.scores) / len(sample.scores) == pytest.approx(expected, abs=1e-4)
    assert sample.n == len(every)
    found = sample.details
    assert found["loss"] == pytest.approx(sum(every) / len(every), abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-3)
    assert (found["window"], found["windows"], found["start_token"]) == (WINDOW, STRIDES + 1, starts)
    assert found["loss_by_position"] == [(0, WINDOW, pytest.approx(found["loss"]))]
    # Plain text of plain letters: the bytes of a token are what it decodes to.
    size = sum(len(tokenizer.decode([text[token]]).encode("utf-8")) for token in where)
    assert found["bits_per_byte"] == pytest.approx(sum(every) / math.log(2) / size, rel=1e-4)


def test_one_window_is_the_whole_of_a_document_and_all_protocols_agree(model, bytes_only, report):
    scores = set()
    for name in NAMES:
        task = small(name, strides=0)
        document = task.build(bytes_only, 64, seed=0, corpus="sotu")
        sample = task.measure(model, bytes_only, document, report=report)
        scores.add(round(sum(sample.scores) / len(sample.scores), 5))
    assert len(scores) == 1


def curve(position):
    """A loss that falls with the context, as that of texts does."""
    return 1.9 + 2.5 / (1 + position / 64) ** 0.7


def test_one_curve_of_losses_gives_three_perplexities(monkeypatch, tokenizer, report):
    """16k tokens in windows of 4096 by 256: protocols alone move the number by more than methods usually do."""

    def fake(model, ids, *, keep, progress):
        losses = torch.tensor([curve(position) for position in range(1, len(ids))])
        return Prefill(None, losses[-keep:], 0.0)

    monkeypatch.setattr(sliding, "prefill", fake)
    window, stride, strides = 4096, 256, 48
    found = {}
    for name in NAMES:
        task = small(name, stride=stride, strides=strides, start="none")
        document = task.build(tokenizer, window, seed=0, corpus="sotu")
        assert len(document.ids) == 16384
        sample = task.measure(None, tokenizer, document, report=report)
        found[name] = sample.details["perplexity"]
        assert math.log(found[name]) == pytest.approx(sum(sample.scores) / len(sample.scores))

    first = sum(map(curve, range(1, window)))
    new = sum(map(curve, range(window - stride, window)))
    by_token = (first + strides * new) / (window - 1 + strides * stride)
    by_window = (first / (window - 1) + strides * new / stride) / (strides + 1)
    everything = first / (window - 1)
    expected = dict(zip(NAMES, map(math.exp, (by_token, by_window, everything)), strict=True))
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["perplexity-chunkllama"] > 1.03 * found["perplexity-sliding"] > 1.03**2 * found["perplexity-yarn"]


@pytest.mark.parametrize("name", NAMES)
def test_loss_by_position_is_that_in_the_window(monkeypatch, tokenizer, report, name):
    def fake(model, ids, *, keep, progress):
        return Prefill(None, torch.arange(1.0, len(ids))[-keep:], 0.0)

    monkeypatch.setattr(sliding, "prefill", fake)
    task = small(name, stride=100, strides=4, start="none")
    document = task.build(tokenizer, 1500, seed=0, corpus="sotu")
    details = task.measure(None, tokenizer, document, report=report).details
    (_, _, head), (first, last, tail) = details["loss_by_position"]
    assert (first, last) == (1024, 1500)
    assert head == pytest.approx(512.0)  # each position 1..1023 as often as any other
    again = 4 * 100 if task.scored == "new" else 4 * 476
    more = sum(range(1400, 1500)) * 4 if task.scored == "new" else sum(range(1024, 1500)) * 4
    assert tail == pytest.approx((sum(range(1024, 1500)) + more) / (476 + again))


def test_protocols_begin_at_the_same_text(bpe):
    documents = [small(name).build(bpe, 64, seed=3, corpus="sotu") for name in NAMES]
    assert len({document.start for document in documents}) == 1
    assert documents[0].ids == documents[1].ids
    assert documents[2].ids[:60] == documents[0].ids[1:61]


def test_start_token_is_put_where_the_protocol_says(tokenizer):
    """This tokenizer has a start token and does not add it: YaRN's script puts it before every window all the same."""
    begins = {name: small(name).build(tokenizer, 64, seed=0, corpus="sotu").ids[0] for name in NAMES}
    assert [begins[name] == tokenizer.bos_token_id for name in NAMES] == [False, True, False]


def test_protocol_ids_say_what_is_scored_and_averaged():
    ids = [TASKS.get(name).protocol for name in NAMES]
    assert ids[0] == "ppl[last256,token-weighted,W=length,16-strides,BOS-if-added]/1"
    assert ids[1] == "ppl[last256,window-weighted,W=length,16-strides,BOS-if-any]/1"
    assert ids[2] == "ppl[all-every256,window-weighted,W=length,16-strides,no-BOS]/1"
    assert small(NAMES[0]).protocol != ids[0]


def test_windows_report_progress_to_the_end(model, bpe):
    seen = []
    task = small(NAMES[0])
    document = task.build(bpe, WINDOW, seed=0, corpus="sotu")
    task.measure(model, bpe, document, report=lambda stage, done: seen.append((stage, done)))
    assert {stage for stage, _ in seen} == {"read"}
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert seen[-1][1] == pytest.approx(1.0)


def test_protocols_run_in_an_evaluation_and_their_results_are_plain_json(model, bpe):
    methods = ("none", "yarn")
    results = evaluate(model, bpe, tasks=NAMES, methods=methods, lengths=(260,), samples=1)
    assert [(one.task, one.method) for one in results] == [(name, method) for name in NAMES for method in methods]
    for one in results:
        json.dumps(one.to_json(), allow_nan=False)
        assert (one.length, one.reached) == (260, 260 + 16 * 256)
        assert one.protocol == TASKS.get(one.task).protocol
        assert one.score == pytest.approx(math.log(one.details[0]["perplexity"]))


def test_what_has_no_windows_is_refused(model, bpe, report):
    task = TASKS.get("perplexity-sliding")
    with pytest.raises(EvaluationError, match="window of 256 tokens is too short for a stride of 256; ask for 257"):
        task.build(bpe, 256, seed=0, corpus="sotu")
    short = task.build(bpe, 257, seed=0, corpus="sotu").without(20, 40)
    with pytest.raises(EvaluationError, match="no windows in a shortened document"):
        task.measure(model, bpe, short, report=report)
    with pytest.raises(EvaluationError, match="stride of 1 or more"):
        Sliding("own", stride=0)
