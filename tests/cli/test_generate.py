"""`ropewalk generate`."""

import io
import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Run

PROMPT = " ".join(["The people of the United States"] * 15)


def test_generate_reads_stdin_and_answers_in_json(run: Run, tiny_model: Path) -> None:
    done = run("generate", tiny_model, "--method", "self-extend", "--max-new-tokens", "5", "--json", stdin=PROMPT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["prompt_tokens"] == len(PROMPT.split())
    assert answer["new_tokens"] == 5
    assert answer["target_length"] == answer["prompt_tokens"] + 5
    assert answer["text"]
    assert answer["method"].startswith("self-extend:")


def test_stream_equals_the_text_in_json(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(PROMPT)
    arguments = ("generate", tiny_model, "-f", prompt, "--method", "yarn", "--max-new-tokens", 6, "--temperature", 1)
    code, streamed, _ = call(*arguments, "--seed", 3)
    assert code == 0
    _, out, err = call(*arguments, "--seed", 3, "--json")
    assert streamed.split() == json.loads(out)["text"].split()
    assert streamed.strip() in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt-file", "nowhere.txt"), "cannot read the prompt file 'nowhere.txt'"),
        (("--chat",), "no chat template"),
        (("--method", "dpe:windw=4"), "did you mean 'window'?"),
        (("--target-length", "20"), "--target-length 20 is less than the prompt"),
        (("--backend", "blockwize"), "blockwise"),
        (("--temperature", "-1"), "--temperature"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT))
    code, out, err = call("generate", tiny_model, *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("dpe:profile={}", "is not JSON"),
        ("clex:profile={}", "is not JSON"),
        ("longrope:file={}", "JSON"),
        ("self-extend:group=2,window=8", "reaches"),
    ],
)
def test_method_that_cannot_be_is_refused_before_weights_are_loaded(
    call: Call, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, message: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT))
    monkeypatch.setattr("ropewalk.models.loading.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    file = tmp_path / "profile.json"
    file.write_bytes(b"\x80\x04K\x01.")  # a pickle
    code, out, err = call("generate", tiny_model, "--method", method.format(file), "--target-length", 512)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]


def test_empty_prompt_is_refused(call: Call, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    code, _, err = call("generate", tiny_model)
    assert code == 2
    assert "is empty" in err


def test_chat_wraps_the_prompt_in_the_models_template(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text("the people {{ messages[0].content }} of the people")
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(PROMPT)
    code, out, err = call("generate", folder, "-f", prompt, "--chat", "--max-new-tokens", 2, "--json")
    assert code == 0, err
    assert json.loads(out)["prompt_tokens"] == len(PROMPT.split()) + 5
