"""`transformers serve`, a server that others wrote, serves the tiny model: it scores what it scores here."""

import os
import socket
import subprocess
import sys
import time

import httpx2
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaForCausalLM

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.endpoint.run import evaluate_endpoint
from ropewalk.evaluate.endpoint.settings import Endpoint
from ropewalk.evaluate.run import evaluate
from ropewalk.evaluate.tasks import TASKS
from ropewalk.evaluate.unit import Setup
from tests.evaluate.endpoint.checksum import Checksum

pytestmark = pytest.mark.slow
LENGTH = 512
TURNS = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}{% endfor %} assistant:"


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    """The tiny model with a tokenizer that puts a start token before a text, and a chat template."""
    model.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    own = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    own.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", None, [("<s>", own.bos_token_id)])
    own.chat_template = TURNS
    own.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.fixture
def url(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with open(tmp_path / "log", "w") as log:
        place = ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([*command, *place], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx2.TransportError:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def test_served_model_scores_what_it_scores_here(folder, url, store, corpus, monkeypatch):
    monkeypatch.setitem(TASKS._entries, "checksum", Checksum())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    assert tokenizer("the")["input_ids"][0] == tokenizer.bos_token_id
    what = {"tasks": ["checksum", "needle"], "lengths": [LENGTH], "samples": 2, "store": store}
    evaluate(model, tokenizer, methods=["none"], setup=Setup(corpus=corpus), **what)
    endpoint = Endpoint(url, folder, max_retries=0)

    def ask(template="base"):
        setup = Setup(corpus=corpus, template=template)
        return evaluate_endpoint(endpoint, tokenizer, tokenizer_name=folder, setup=setup, **what)

    done = ask()
    assert done.measured == 4 and not done.failures and done.spent.counted == done.spent.retries == 0
    local = {(row.key.task, row.key.document): row for row in store.rows(method="none")}
    for row in store.rows(method="endpoint"):
        here = local[row.key.task, row.key.document]
        assert row.scores == here.scores and row.prompt_sha256 == here.prompt_sha256
        assert not row.details["endpoint"]["retokenized"]
        if row.key.task == "checksum":
            assert row.details["said"][0]["text"] == here.details["prediction"]
            assert row.details["endpoint"]["prompt_tokens"] == here.reached  # the start token once

    chat = ask("chat")
    assert chat.measured == 4 and not chat.failures
    assert {row.key.template for row in store.rows(method="endpoint")} == {"base", "", "chat"}

    wrong = Endpoint(url, "another", max_retries=0, max_failures=1)
    done = evaluate_endpoint(wrong, tokenizer, tokenizer_name=folder, setup=Setup(corpus=corpus), **what)
    assert "requested 'another'" in done.failures[0] and done.measured == 0
    with pytest.raises(EvaluationError, match="have no score"):
        done.refuse_failures()
