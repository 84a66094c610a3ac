import asyncio
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.answer import EndpointError
from ropewalk.evaluate.endpoint.client import Client
from ropewalk.evaluate.endpoint.pace import Pace
from tests.evaluate.endpoint.server import CLOSE, HANG, Reply, said

ROOT = Path(__file__).parents[3]
BUSY = Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "7"})
BROKEN = Reply({"error": {"message": "out of memory"}}, 500)


def ask(endpoint, *prompts, chat=False, pace=None):
    """The answers to prompts, one after another."""

    async def all_of_them():
        async with Client(endpoint, chat=chat, pace=pace or Pace(None, None)) as client:
            return [await client.ask(prompt, new_tokens=12, tokens=100) for prompt in prompts or ["The sky is"]]

    return asyncio.run(all_of_them())


def fail(endpoint, **options):
    """Why a prompt got no answer: one line."""
    with pytest.raises(EndpointError) as error:
        ask(endpoint, **options)
    assert "\n" not in str(error.value) and endpoint.base_url in str(error.value)
    return error.value


def script(*answers):
    """Answers in order, then good ones."""
    return lambda body, number: answers[number] if number < len(answers) else said("well", body)


def test_prompt_is_sent_to_be_continued(serve, endpoint):
    server = serve()
    (answer,) = ask(endpoint(server))
    ((path, headers, body),) = server.requests
    assert path == "/v1/completions" and headers["authorization"] == "Bearer none"
    assert body == {"model": "tiny", "prompt": "The sky is", "max_tokens": 12, "temperature": 0.0, "seed": 0}
    assert (answer.text, answer.finish, answer.served, answer.retries) == ("well", "stop", "served-1", 0)
    assert (answer.prompt_tokens, answer.completion_tokens) == (100, 7)


def test_chat_prompt_is_one_user_message(serve, endpoint):
    server = serve()
    (answer,) = ask(endpoint(server, temperature=None, seed=None), chat=True)
    ((path, _, body),) = server.requests
    assert path == "/v1/chat/completions" and answer.text == "well"
    assert body == {"model": "tiny", "messages": [{"role": "user", "content": "The sky is"}], "max_tokens": 12}


def test_key_is_sent_and_never_shown(serve, endpoint, monkeypatch):
    monkeypatch.setenv("OWN_KEY", "sk-secret-5")
    server = serve(lambda body, number: Reply({"error": {"message": "wrong key\n'sk-secret-5'"}}, 401))
    told = str(fail(endpoint(server, api_key_env="OWN_KEY")))
    assert server.requests[0][1]["authorization"] == "Bearer sk-secret-5"
    assert "HTTP 401 (1 try): wrong key '[key]'; it refuses the key in the environment variable OWN_KEY" in told
    assert "secret" not in told


def test_retry_comes_when_the_server_says(serve, endpoint, delays):
    server = serve(script(BUSY))
    (answer,) = ask(endpoint(server, max_retries=3))
    assert delays == [7] and answer.retries == 1 and len(server.requests) == 2


def test_retry_comes_at_the_date_that_the_server_says(serve, endpoint, delays):
    date = formatdate(time.time() + 100, usegmt=True)
    server = serve(script(Reply({}, 503, {"Retry-After": date})))
    ask(endpoint(server, max_retries=1))
    assert len(server.requests) == 2 and 60 < delays[0] <= 100


def test_server_that_says_hours_is_not_waited_for(serve, endpoint, delays):
    server = serve(script(Reply({"error": {"message": "come back later"}}, 429, {"Retry-After": "7200"})))
    error = fail(endpoint(server, max_retries=5))
    assert "HTTP 429 (1 try): come back later" in str(error) and error.fatal and delays == []


def test_retries_back_off(serve, endpoint, delays):
    server = serve(script(*[BROKEN] * 4))
    (answer,) = ask(endpoint(server, max_retries=4))
    assert answer.retries == 4 and len(server.requests) == 5
    assert [0.75 * 0.5 * 2**n <= delay <= 0.5 * 2**n for n, delay in enumerate(delays)] == [True] * 4


def test_retries_end(serve, endpoint, delays):
    server = serve(lambda body, number: BROKEN)
    error = fail(endpoint(server, max_retries=2))
    assert "HTTP 500 (3 tries): out of memory" in str(error)
    assert not error.fatal and error.retries == len(delays) == 2 and len(server.requests) == 3


def test_retries_keep_the_pace(serve, endpoint, delays):
    server = serve(script(BROKEN, BROKEN))
    now, slept = [0.0], []

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    ask(endpoint(server, max_retries=3), "a", "b", pace=Pace(1, None, clock=lambda: now[0], sleep=sleep))
    assert len(server.requests) == 4 and slept == [60, 60, 60]


def test_request_counts_its_prompt_and_its_room_towards_the_tokens(serve, endpoint):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    for limit, waits in ((224, []), (223, [60])):
        slept.clear()
        ask(endpoint(serve()), "a", "b", pace=Pace(None, limit, clock=lambda: 0.0, sleep=sleep))
        assert slept == waits


def test_silent_server_times_out(serve, endpoint, delays):
    server = serve(lambda body, number: HANG)
    error = fail(endpoint(server, timeout=0.2, max_retries=1))
    assert "was silent for 0.2 s (2 tries)" in str(error) and not error.fatal and len(server.requests) == 2


def test_silent_server_is_asked_again(serve, endpoint, delays):
    (answer,) = ask(endpoint(serve(script(HANG)), timeout=0.2, max_retries=1))
    assert answer.text == "well" and answer.retries == 1


def test_broken_connection_is_tried_again(serve, endpoint, delays):
    (answer,) = ask(endpoint(serve(script(CLOSE)), max_retries=1))
    assert answer.retries == 1
    error = fail(endpoint(serve(lambda body, number: CLOSE), max_retries=2))
    assert "does not take or keep the connection (3 tries: Server disconnected" in str(error) and error.fatal


def test_refused_connection_is_fatal(endpoint, delays):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = fail(endpoint(f"http://127.0.0.1:{unused.getsockname()[1]}/v1", max_retries=1))
    assert "does not take or keep the connection (2 tries: " in str(error) and error.fatal and error.retries == 1


@pytest.mark.parametrize(
    ("reply", "message", "fatal"),
    [
        (
            Reply({"error": {"message": "no key"}}, 401),
            "no key; it wants a key, and none is in .* OPENAI_API_KEY",
            True,
        ),
        (Reply({"error": {"message": "not yours"}}, 403), "HTTP 403 .1 try.: not yours", True),
        (Reply({"error": {"message": "no model tiny"}}, 404), "no model tiny; correct the model's name", True),
        (Reply({"detail": "Not Found"}, 404), "HTTP 404 .1 try.: Not Found", True),
        (BUSY, "slow down; lower the requests or tokens per minute", True),
        (Reply({"error": "context of 10 tokens"}, 400), "HTTP 400 .1 try.: context of 10 tokens$", False),
        (Reply({"error": {"why": ["a", 1]}}, 422), r'HTTP 422 .1 try.: \{"why": \["a", 1\]\}$', False),
        (Reply(b"<h1>Bad\ngateway</h1>", 502), "HTTP 502 .1 try.: <h1>Bad gateway</h1>$", False),
        (Reply(b"", 500), "HTTP 500 .1 try.: no reason given$", False),
    ],
)
def test_http_errors_say_what_the_server_says(serve, endpoint, reply, message, fatal):
    error = fail(endpoint(serve(lambda body, number: reply)))
    assert error.fatal == fatal
    with pytest.raises(EndpointError, match=message):
        raise error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!doctype html><p>Hello", "is not JSON; its base URL mostly ends with /v1: <!doctype html><p>Hello"),
        (b"", "is not JSON; .*: nothing"),
        (b"\xff\xfe", "is not JSON"),
        ([1, 2], r"is no object: \[1, 2\]"),
        ({}, "has no choices: {}"),
        ({"choices": []}, "has no choices"),
        ({"choices": None}, "has no choices"),
        ({"choices": ["text"]}, "has no choices"),
        ({"choices": [{}]}, "has no text"),
        ({"choices": [{"text": None, "finish_reason": "stop"}]}, "has no text"),
        ({"choices": [{"text": ["a"], "finish_reason": "stop"}]}, "has no text"),
        ({"choices": [{"text": "", "finish_reason": None}]}, "has no text"),
        (
            {"choices": [{"text": "", "finish_reason": "length"}]},
            "without a word .finish_reason length.; .* extra tokens",
        ),
        (
            {"choices": [{"text": None, "finish_reason": "content_filter"}]},
            "without a word .finish_reason content_filter",
        ),
        ({"error": {"message": "x" * 1000}}, "x" * 250 + ".*[.][.][.]$"),
    ],
)
def test_nonsense_is_shown_and_never_scored(serve, endpoint, body, message):
    error = fail(endpoint(serve(lambda sent, number: Reply(body)), max_retries=3))
    assert not error.fatal and error.retries == 0 and len(str(error)) < 600
    with pytest.raises(EndpointError, match=message):
        raise error


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"text": "well"}, "has no message"),
        ({"message": "well"}, "has no message"),
        ({"message": {"role": "assistant"}, "finish_reason": "stop"}, "has no text"),
        ({"message": {"content": None, "reasoning": "hm"}, "finish_reason": "length"}, "without a word"),
    ],
)
def test_nonsense_in_a_chat_is_shown(serve, endpoint, choice, message):
    with pytest.raises(EndpointError, match=message):
        ask(endpoint(serve(lambda body, number: {"choices": [choice]})), chat=True)


def test_refusal_in_a_chat_is_what_the_model_said(serve, endpoint):
    message = {"content": None, "refusal": "I will not."}
    choice = {"message": message, "finish_reason": "stop"}
    (answer,) = ask(endpoint(serve(lambda body, number: {"choices": [choice]})), chat=True)
    assert answer.text == "I will not."


def test_model_that_ends_at_once_has_answered(serve, endpoint):
    (answer,) = ask(endpoint(serve(lambda body, number: said("", body))))
    assert answer.text == ""


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many", "completion_tokens": -1}, [3]])
def test_tokens_that_the_server_does_not_count_are_not_known(serve, endpoint, usage):
    (answer,) = ask(endpoint(serve(lambda body, number: said("well", body) | {"usage": usage})))
    assert (answer.prompt_tokens, answer.completion_tokens) == (None, None)


def test_parameters_that_the_server_refuses_are_put_another_way_once(serve, endpoint):
    def answer(body, number):
        for name in ("max_tokens", "seed"):
            if name in body:
                return Reply({"error": {"message": f"unsupported: {name}", "param": name}}, 400)
        return said("well", body)

    server = serve(answer)
    first, second = ask(endpoint(server), "a", "b", chat=True)
    assert len(server.requests) == 4
    assert first.settings == second.settings == {"max_completion_tokens": 12, "temperature": 0.0}
    assert (first.retries, second.retries) == (2, 0)


def test_refused_temperature_is_an_error_and_not_another_measurement(serve, endpoint):
    refusal = Reply({"error": {"message": "only the default temperature", "param": "temperature"}}, 400)
    server = serve(lambda body, number: refusal)
    assert "only the default temperature" in str(fail(endpoint(server))) and len(server.requests) == 1


def test_endpoint_without_the_library_says_what_to_install():
    code = (
        "import sys; sys.modules['openai'] = None\n"
        "from ropewalk.errors import EvaluationError\n"
        "try:\n    import ropewalk.evaluate.endpoint.client\n"
        "except EvaluationError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert "pip install 'ropewalk[endpoint]'" in done.stdout, done.stderr
    assert issubclass(EndpointError, EvaluationError)
