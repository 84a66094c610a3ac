"""`ropewalk endpoint`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Run
from tests.evaluate.endpoint.server import Server, said


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that knows two of the ten facts of any document, by repeating what its prompt says after the query."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def answer(body: dict[str, str], number: int) -> dict[str, object]:
        query = body["prompt"].splitlines()[-1].strip()
        found = re.search(re.escape(query) + r"\s+(\w+)", body["prompt"])
        return said(found.group(1) if found and number % 5 == 0 else "nobody knows", body)

    started = Server(answer)
    yield started
    started.shut()


def command(server: Server, model: Path, store: Path) -> tuple[object, ...]:
    where = ("--url", server.url, "--served", "tiny", "--tokenizer", model, "--store", store)
    return ("endpoint", "niah_single_1", *where, "--lengths", "1k", "--samples", 5, "--concurrency", 2)


def test_endpoint_answers_with_results_its_cost_and_what_is_left(
    run: Run, server: Server, tiny_model: Path, tmp_path: Path
) -> None:
    prices = ("--prompt-price", 2, "--completion-price", 4)
    done = run(*command(server, tiny_model, tmp_path / "r.db"), *prices, "--json")
    assert done.returncode == 0, done.stderr
    [result] = json.loads(done.stdout)["results"]
    assert (result["task"], result["method"], result["n"]) == ("niah_single_1", "endpoint", 5)
    assert "5 samples to ask (0 stored)" in done.stderr
    assert "cost 0.0011" in done.stderr  # five answers of 100 prompt and 7 generated tokens, as the server says
    again = run(*command(server, tiny_model, tmp_path / "r.db"), "--json")
    assert json.loads(again.stdout)["results"] == json.loads(done.stdout)["results"]
    assert "0 samples asked now" in again.stderr and len(server.requests) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--concurrency", 0), "concurrency is 0"),
        (("--max-cost", 1), "needs prices"),
        (("--url", "ftp://here"), "http"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, server: Server, tiny_model: Path, tmp_path: Path, change: tuple[object, ...], message: str
) -> None:
    code, out, err = call(*command(server, tiny_model, tmp_path / "r.db"), *change)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and message in err.splitlines()[-1]


def test_task_without_text_answers_is_refused(call: Call, server: Server, tiny_model: Path, tmp_path: Path) -> None:
    words = ["perplexity" if word == "niah_single_1" else word for word in command(server, tiny_model, tmp_path / "r")]
    code, _, err = call(*words)
    assert code == 2 and "perplexity" in err.splitlines()[-1]
    assert not server.requests
