import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.run import evaluate_endpoint
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.row import results
from ropewalk.evaluate.ruler.task import Ruler
from ropewalk.evaluate.run import evaluate
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.unit import Setup, document_seed
from tests.evaluate.endpoint.asker import ask_ledgers
from tests.evaluate.endpoint.checksum import Checksum
from tests.evaluate.endpoint.server import HANG, Reply, said

LENGTH = 512
ROOT = Path(__file__).parents[3]
BROKEN = Reply({"error": {"message": "out of memory"}}, 500)
UNKNOWN = Reply({"error": {"message": "no model tiny"}}, 404)


@pytest.fixture
def ask(tokenizer, store, corpus):
    """Run an endpoint on two ledgers, unless told otherwise."""

    def run(endpoint, **options):
        options = {"tasks": ["qa_ledger"], "lengths": [LENGTH], "samples": 2, "store": store, **options}
        options["setup"] = replace(options.get("setup", Setup()), corpus=corpus)
        return evaluate_endpoint(endpoint, tokenizer, tokenizer_name="test", **options)

    return run


@pytest.fixture
def greedy(model, tokenizer):
    """Answers as the tiny model does."""
    lock = threading.Lock()

    def answer(body, number):
        ids = torch.tensor([tokenizer(body["prompt"])["input_ids"]])
        with lock, torch.inference_mode():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=body["max_tokens"], do_sample=False
            )
        text = tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": whole.shape[1] - ids.shape[1]}
        return said(text, body) | {"usage": usage}

    return answer


def test_served_model_scores_what_it_scores_here(
    serve, endpoint, ask, greedy, model, tokenizer, store, monkeypatch, corpus
):
    monkeypatch.setitem(TASKS._entries, "checksum", Checksum())
    tasks = ["checksum", "needle"]
    evaluate(
        model,
        tokenizer,
        tasks=tasks,
        methods=["none"],
        lengths=[LENGTH],
        samples=2,
        setup=Setup(corpus=corpus),
        store=store,
    )
    done = ask(endpoint(serve(greedy)), tasks=tasks)
    assert done.measured == 4 and not done.failures and not done.stopped
    rows = {(row.method, row.key.task, row.key.seed, row.key.document): row for row in store.rows()}
    assert len(rows) == 8
    for (method, *where), row in rows.items():
        if method == "endpoint":
            local = rows[("none", *where)]
            assert row.scores == local.scores and row.prompt_sha256 == local.prompt_sha256
            assert (row.metric, row.n, row.reached) == (local.metric, local.n, local.reached)
            assert (row.key.protocol, row.key.template) == (local.key.protocol, local.key.template)
            assert not row.details["endpoint"]["retokenized"]
            if row.key.task == "checksum":
                assert row.details["said"][0]["text"] == local.details["prediction"]
                assert row.details["endpoint"]["prompt_tokens"] == local.reached
    assert len({row.scores for row in rows.values() if row.key.task == "checksum"}) == 2


def test_row_says_what_was_asked_and_what_it_took(serve, endpoint, ask, tokenizer, store, delays, corpus):
    server = serve(lambda body, number: BROKEN if number == 0 else said("the answer", body))
    settings = endpoint(server, name="mine", max_retries=2, prompt_price=10.0, completion_price=100.0, concurrency=1)
    done = ask(settings, samples=1)
    (row,) = store.rows()
    assert done.keys == [row.key] and (row.method, row.model, row.device) == ("mine", "tiny", "endpoint")
    key = row.key
    assert (key.resolved, key.plan_sha256, key.backend, key.dtype) == ("mine", "", "endpoint", "unknown")
    assert key.model_sha256 == settings.sha256
    task = Ruler("qa_ledger")
    document = task.build(tokenizer, LENGTH, seed=document_seed(0, 0), corpus=corpus)
    assert row.prompt_sha256 == prompt_sha256(document.ids) and row.reached == len(document.ids)
    assert server.prompts[-1] == task.text(tokenizer, document)
    assert server.requests[-1][2]["max_tokens"] == task.questions(document)[0].new_tokens
    told = row.details["endpoint"]
    assert told["url"] == server.url and told["served"] == ["served-1"] and told["api"] == "completions"
    assert (told["requests"], told["retries"], told["counted_by"]) == (1, 1, "server")
    assert (told["prompt_tokens"], told["completion_tokens"]) == (100, 7)
    assert told["cost"] == pytest.approx((100 * 10 + 7 * 100) / 1e6) == done.spent.cost
    assert row.details["said"][0]["text"] == "the answer" and "openai" in row.versions
    assert str(done.spent) == "1 requests (1 retries), 100 prompt and 7 generated tokens, cost 0.0017"
    (result,) = results([row])
    json.dumps(result.to_json(), allow_nan=False)


def test_right_answers_score(serve, endpoint, ask, tokenizer, store, corpus):
    task = TASKS.get("needle")
    document = task.build(tokenizer, LENGTH, seed=0, corpus=corpus)
    text = task.text(tokenizer, document)
    answers = {text + fact.prefix: fact.answer for fact in document.facts[::2]}

    def answer(body, number):
        return said(f" {answers.get(body['prompt'], 'nothing')} and more", body)

    ask(endpoint(serve(answer)), tasks=["needle"], samples=1)
    (row,) = store.rows()
    assert row.scores == (1.0, 0.0) * 5


def test_chat_is_its_own_protocol_and_may_repeat_the_question(serve, endpoint, ask, tokenizer, store, corpus):
    task = TASKS.get("needle")
    document = task.build(tokenizer, LENGTH, seed=0, corpus=corpus)
    text = task.text(tokenizer, document)

    def answer(body, number):
        asked = body["messages"][0]["content"]
        fact = next(fact for fact in document.facts if asked == text + fact.prefix)
        return said(f"{fact.prefix} {fact.answer}." if fact is document.facts[0] else f"{fact.answer}.", body)

    ask(endpoint(serve(answer)), tasks=["needle"], samples=1, setup=Setup(template="chat"))
    (row,) = store.rows()
    assert row.scores == (1.0,) * 10
    assert (row.key.protocol, row.key.template) == (task.protocol + "+user-message/1", "chat")
    assert row.details["endpoint"]["api"] == "chat/completions"
    assert row.prompt_sha256 == prompt_sha256(document.ids)


def test_estimate_comes_first_and_counts_what_is_left(serve, endpoint, ask, tokenizer):
    server = serve(lambda body, number: said("a b c", body, usage=False))
    seen = []
    settings = endpoint(server, prompt_price=1.0, completion_price=2.0, extra_tokens=5)
    ask(settings, tasks=["needle"], samples=1)
    done = ask(
        settings,
        tasks=["needle"],
        samples=3,
        on_estimate=lambda estimate: seen.append((estimate, len(server.requests))),
    )
    ((estimate, asked_before),) = seen
    assert asked_before == 10 and (estimate.samples, estimate.stored, estimate.requests) == (3, 1, 20)
    assert estimate.completion_tokens == 20 * (12 + 5)
    assert estimate.cost == settings.cost(estimate.prompt_tokens, estimate.completion_tokens)
    assert "2 samples to ask (1 stored): 20 requests" in str(estimate)
    # The server gives no usage: the tokenizer counts. Documents of one length differ by a query's tokens only.
    assert done.spent.counted == 20 and done.spent.completion_tokens == 20 * len(tokenizer("a b c")["input_ids"])
    assert done.spent.prompt_tokens == pytest.approx(estimate.prompt_tokens, rel=0.03)
    assert "(20 answers counted by the tokenizer)" in str(done.spent)


def test_what_stops_at_the_estimate_asks_nothing(serve, endpoint, ask):
    def refuse(estimate):
        raise EvaluationError("too much")

    server = serve()
    with pytest.raises(EvaluationError, match="too much"):
        ask(endpoint(server), on_estimate=refuse)
    assert not server.requests


def test_stored_samples_are_never_asked_again(serve, endpoint, ask):
    server = serve()
    assert ask(endpoint(server)).measured == 2
    again = ask(endpoint(server))
    assert len(server.requests) == 2 and again.measured == again.spent.requests == 0 and len(again.keys) == 2
    ask(endpoint(server), samples=3)
    assert len(server.requests) == len(set(server.prompts)) == 3


@pytest.mark.parametrize("concurrency", [1, 4])
def test_limit_of_the_cost_is_kept_and_used(serve, endpoint, ask, store, tokenizer, concurrency, corpus):
    server = serve()  # 100 prompt and 7 generated tokens an answer
    prices = {"prompt_price": 1e6, "completion_price": 1e6, "concurrency": concurrency}
    task = Ruler("qa_ledger")
    documents = [task.build(tokenizer, LENGTH, seed=index, corpus=corpus) for index in range(9)]
    most = [len(document.ids) + task.questions(document)[0].new_tokens for document in documents]
    limit = 1000
    affordable = next(index for index in range(9) if 107 * index + most[index] > limit)
    done = ask(endpoint(server, max_cost=limit, **prices), samples=9)
    assert 1 < affordable < 9 and done.measured == len(store.rows()) == affordable
    assert done.stopped == "the next sample could take the cost beyond 1000" and not done.failures
    assert done.spent.cost == 107 * affordable <= limit
    rest = ask(endpoint(server, max_cost=5000, **prices), samples=9)
    assert rest.measured == 9 - affordable and not rest.stopped and len(set(server.prompts)) == len(server.prompts) == 9


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_requests_are_under_way_as_allowed(serve, endpoint, ask, concurrency):
    together = threading.Barrier(concurrency)

    def answer(body, number):
        together.wait(timeout=20)  # answers only when so many are there
        return said("well", body)

    server = serve(answer)
    done = ask(endpoint(server, concurrency=concurrency), tasks=["needle"], samples=3)
    assert done.measured == 3 and server.most == concurrency


def test_documents_are_asked_one_after_another(serve, endpoint, ask, tokenizer, corpus):
    server = serve()
    ask(endpoint(server, concurrency=1), tasks=["needle"], samples=2)
    task = TASKS.get("needle")
    documents = [task.build(tokenizer, LENGTH, seed=index, corpus=corpus) for index in range(2)]
    assert server.prompts == [
        task.text(tokenizer, document) + question.text
        for document in documents
        for question in task.questions(document)
    ]


def test_failed_sample_is_named_and_the_others_are_stored(serve, endpoint, ask, tokenizer, store, corpus):
    task = TASKS.get("needle")
    document = task.build(tokenizer, LENGTH, seed=1, corpus=corpus)
    bad = task.text(tokenizer, document) + task.questions(document)[2].text
    server = serve(lambda body, number: {} if body["prompt"] == bad else said("well", body))
    done = ask(endpoint(server, concurrency=1), tasks=["needle"], samples=3)
    assert done.measured == 2 and [row.key.document for row in store.rows()] == [0, 2]
    assert len(done.failures) == 1 and "seed 0, document 1: the endpoint" in done.failures[0]
    assert "has no choices" in done.failures[0] and not done.stopped
    assert len(server.requests) == 10 + 3 + 10  # what follows the failure in its document is not paid for
    with pytest.raises(EvaluationError, match="1 samples have no score"):
        done.refuse_failures()
    mended = serve()
    assert ask(endpoint(mended), tasks=["needle"], samples=3).measured == 3  # another URL is another model
    server.answer = mended.answer
    assert ask(endpoint(server), tasks=["needle"], samples=3).measured == 1 and len(server.requests) == 23 + 10


def test_run_stops_after_so_many_failures(serve, endpoint, ask):
    server = serve(lambda body, number: BROKEN)
    done = ask(endpoint(server, max_failures=2, concurrency=1), samples=9)
    assert len(done.failures) == 2 and done.stopped == "2 samples failed"
    assert len(server.requests) == 2 and done.measured == 0 and not done.keys


def test_error_that_ends_all_keeps_what_is_stored_and_gives_claims_back(serve, endpoint, ask, store, tmp_path):
    server = serve(lambda body, number: UNKNOWN if number >= 2 else said("well", body))
    message = "no model tiny; correct .*; 2 of 6 samples are stored; mend that, then run the same again"
    with pytest.raises(EvaluationError, match=message) as error:
        ask(endpoint(server, concurrency=2), samples=6)
    assert "\n" not in str(error.value)
    assert len(store.rows()) == 2 and len(server.requests) <= 5
    server.answer = lambda body, number: said("well", body)
    with Store(tmp_path / "store.db") as another:
        assert ask(endpoint(server), samples=6, store=another).measured == 4


def test_sample_that_another_process_asks_is_waited_for(serve, endpoint, ask, store, tmp_path, monkeypatch):
    claim, refused = store.claim, []

    def busy_once(key):
        if key.document == 0 and not refused:
            refused.append(key)
            return False
        return claim(key)

    monkeypatch.setattr(store, "claim", busy_once)
    done = ask(endpoint(serve()))
    assert len(refused) == 1 and done.measured == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["perplexity"]}, "perplexity is scored on a model's probabilities, and an endpoint gives only text"),
        ({"tasks": ["neddle"]}, "did you mean 'needle'"),
        ({"lengths": [60]}, "qa_ledger does not fit 60 tokens"),
        ({"samples": 0}, "nothing to evaluate"),
        ({"setup": Setup(template="[INST]")}, "no single place for a task"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_request(serve, endpoint, ask, change, message):
    server = serve()
    with pytest.raises(EvaluationError, match=message):
        ask(endpoint(server), **change)
    assert not server.requests


def test_request_larger_than_a_minute_is_refused(serve, endpoint, ask):
    server = serve()
    with pytest.raises(EvaluationError, match=r"qa_ledger at 512 uses up to .* more than the 400 of a minute"):
        ask(endpoint(server, tokens_per_minute=400))
    assert not server.requests


def test_calibration_prompt_is_refused_before_it_is_paid_for(serve, endpoint, ask, store, tokenizer, corpus):
    document = Ruler("qa_ledger").build(tokenizer, LENGTH, seed=1, corpus=corpus)
    store.mark_calibration([prompt_sha256(document.ids)], used_by="a profile")
    server = serve()
    with pytest.raises(EvaluationError, match="used to calibrate a profile"):
        ask(endpoint(server, concurrency=1))
    assert len(server.requests) <= 1


def test_progress_counts_answers_and_samples(serve, endpoint, ask):
    seen = []
    ask(
        endpoint(serve(), concurrency=1),
        tasks=["needle"],
        progress=lambda now: seen.append((now.unit.document, now.answered, now.questions, now.stored, now.samples)),
    )
    assert seen == [(document, n, 10, document + (n == 10), 2) for document in range(2) for n in range(1, 11)]


@pytest.mark.slow
def test_killed_run_goes_on_where_it_stopped(serve, tokenizer, corpus, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    server = serve(lambda body, number: HANG if number >= 5 else said("well", body))
    arguments = [server.url, str(tmp_path / "store.db"), str(tmp_path / "tokenizer"), corpus]
    process = subprocess.Popen([sys.executable, "-m", "tests.evaluate.endpoint.asker", *arguments], cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while len(server.requests) < 7 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert len(server.requests) == 7  # five answered, two in flight
    with Store(tmp_path / "store.db") as store:
        kept = {row.key.document for row in store.rows()}
    assert len(kept) == 5
    server.answer = lambda body, number: said("well", body)
    done = ask_ledgers(*arguments)
    assert done.measured == 3 and len(done.keys) == 8
    assert set(server.prompts[7:]).isdisjoint(server.prompts[:5]) and len(server.prompts) == 10
