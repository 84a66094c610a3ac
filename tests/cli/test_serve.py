"""`ropewalk serve`, up to the engine's own command: nothing is started here (tests/vllm/test_server.py does)."""

import json
import os
import socket

import pytest

import ropewalk
from ropewalk.models.loading import load_model
from ropewalk.serve import estimate, front
from tests.cli.conftest import WINDOW, Call

TARGET = 4 * WINDOW


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    """vLLM as far as the front looks: its version."""
    monkeypatch.setattr(front, "installed", lambda: front.Engine("vllm", "0.32.0"))
    monkeypatch.setattr(os, "execv", lambda *words: pytest.fail(f"started {words}"))


def dry(call: Call, *words) -> dict:
    code, told, err = call("serve", "--port", free_port(), "--dry-run", "--json", *words)
    assert code == 0, err
    return json.loads(told) | {"told": err}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_effective_context_and_the_command_are_told(call: Call, tiny_model) -> None:
    told = dry(call, tiny_model, "--method", "dpe", "--target-length", TARGET, "--gpus", 2, "--", "--seed", "1")
    words = told["command"]
    assert words[words.index("--model") + 1] == str(tiny_model) and words[-2:] == ["--seed", "1"]
    assert words[words.index("--max-model-len") + 1] == str(TARGET)
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    entry = json.loads(words[words.index("--hf-overrides") + 1])
    assert entry == {"ropewalk": {"method": "dpe", "target_length": TARGET}, "model_max_length": TARGET}
    assert f"trained on {WINDOW} tokens, requests may grow to {TARGET}" in told["told"]


def test_a_method_without_a_target_is_served_as_far_as_it_reaches(call: Call, tiny_model) -> None:
    words = dry(call, tiny_model, "--method", "self-extend:group=4,window=16")["command"]
    limit = int(words[words.index("--max-model-len") + 1])
    assert WINDOW < limit <= 4 * WINDOW


def test_a_saved_extension_is_served_with_its_base(call: Call, tiny_model, tmp_path) -> None:
    model, _ = load_model(str(tiny_model))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    words = dry(call, tmp_path / "saved")["command"]
    assert words[words.index("--model") + 1] == str(tiny_model)
    assert json.loads(words[words.index("--hf-overrides") + 1])["ropewalk"] == {"folder": str(tmp_path / "saved")}


def test_what_a_saved_extension_brings_is_not_given_again(call: Call, tiny_model, tmp_path) -> None:
    model, _ = load_model(str(tiny_model))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    for given in (("--method", "dpe"), ("--pretrained-length", 32)):
        code, _, err = call("serve", tmp_path / "saved", "--port", free_port(), *given)
        assert code == 2 and "brings its method and trained window" in err


def test_a_full_folder_is_served_as_the_model_that_it_was(call: Call, tiny_model, tmp_path) -> None:
    model, tokenizer = load_model(str(tiny_model))
    folder, own = tmp_path / "full", json.loads((tiny_model / "config.json").read_text())
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, folder, full=True, tokenizer=tokenizer)
    words = dry(call, folder)["command"]
    assert words[words.index("--model") + 1] == str(folder)
    told = json.loads(words[words.index("--hf-overrides") + 1])
    assert told["architectures"] == own["architectures"] and told["rope_parameters"] == own["rope_parameters"]
    assert told["ropewalk"] == {"folder": str(folder)}


def test_a_model_without_a_method_is_told_nothing(call: Call, tiny_model) -> None:
    assert "--hf-overrides" not in dry(call, tiny_model)["command"]


def test_a_length_that_does_not_fit_is_refused_before_the_engine_starts(call: Call, tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(estimate, "available", lambda: 1000)
    code, _, err = call("serve", tiny_model, "--method", "dpe", "--target-length", TARGET, "--port", free_port())
    assert code == 2 and f"one request of {TARGET} tokens needs" in err


def test_a_busy_port_is_refused(call: Call, tiny_model) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, _, err = call("serve", tiny_model, "--method", "dpe", "--port", other.getsockname()[1])
    assert code == 2 and "another --port" in err


def test_without_vllm_a_method_is_refused(call: Call, tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(front, "installed", lambda: front.Engine("transformers", "5.23.0"))
    code, _, err = call("serve", tiny_model, "--method", "dpe", "--port", free_port())
    assert code == 2 and "attaches no method (dpe)" in err
