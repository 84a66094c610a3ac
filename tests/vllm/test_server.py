"""`ropewalk serve` as people use it: a server of its own process, asked over HTTP by OpenAI's client."""

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.vllm.engine import ROOT
from tests.vllm.models import TARGET, VOCABULARY, expected, prompts, save_model

METHOD = "self-extend"
ASKED = prompts(9, 40, 64, 65, 100, 131, 180, 200)
NEW = 16
START = 900  # seconds; half a minute on a machine that does nothing else


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama with a tokenizer of one word for each token, w0 to w98."""
    folder = save_model(tmp_path_factory.mktemp("served") / "model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    """A running server."""
    port = free_port()
    words = [sys.executable, "-m", "ropewalk", "serve", str(folder), "--method", METHOD, "--target-length", str(TARGET)]
    words += ["--port", str(port), "--dtype", "float32", "--", "--enforce-eager", "--block-size", "32"]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = folder.parent / "server.log"
    with (
        log.open("w") as output,
        subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            until = time.monotonic() + START
            while time.monotonic() < until and server.poll() is None and not answers(f"http://127.0.0.1:{port}/health"):
                time.sleep(1)
            assert server.poll() is None and answers(f"http://127.0.0.1:{port}/health"), log.read_text()[-6000:]
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_eight_streams_at_once_are_each_as_alone(folder, address) -> None:
    openai = pytest.importorskip("openai")

    async def ask(client, prompt) -> tuple[list[int], int]:
        stream = await client.completions.create(
            model=str(folder),
            prompt=prompt,
            max_tokens=NEW,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True, "skip_special_tokens": False},
        )
        parts = [chunk.choices[0].text async for chunk in stream]
        return [int(word.removeprefix("w")) for word in "".join(parts).split()], len(parts)

    async def ask_all() -> list[tuple[list[int], int]]:
        async with openai.AsyncOpenAI(base_url=address, api_key="none") as client:
            return await asyncio.gather(*(ask(client, prompt) for prompt in ASKED))

    found = asyncio.run(ask_all())
    for (tokens, parts), wanted in zip(found, expected(folder, METHOD, ASKED, NEW), strict=True):
        assert tokens == wanted.tokens
        assert parts > 1  # it came in pieces


def test_a_request_beyond_the_target_is_refused(folder, address) -> None:
    openai = pytest.importorskip("openai")
    with (
        openai.OpenAI(base_url=address, api_key="none") as client,
        pytest.raises(openai.BadRequestError, match=str(TARGET)),
    ):
        client.completions.create(model=str(folder), prompt=prompts(TARGET + 1)[0], max_tokens=NEW)
