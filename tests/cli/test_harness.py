"""`ropewalk harness`."""

import json
from pathlib import Path

import datasets
import pytest

from tests.cli.conftest import Call, Run
from tests.harness_tasks import DOCUMENTS, LENGTHS, NAMES, WINDOW, tiny_network, tiny_tokenizer, write_tasks

METHOD = "self-extend:group=8,window=16"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_network().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def given(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Options of every call: the tiny model, task files and a store in the test's folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))  # of other processes
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return ("--model", model, "--include-path", write_tasks(tmp_path), "--store", tmp_path / "results.db")


def test_harness_answers_with_one_result_per_task_and_method(run: Run, given: tuple[object, ...]) -> None:
    methods = ("--method", "none", "--method", METHOD, "--target-length", "256")
    done = run("harness", *NAMES, *methods, *given, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["results"]
    assert [(one["task"], one["method"]) for one in found] == [
        (f"lm-eval/{task}", method) for task in NAMES for method in ("none", METHOD)
    ]
    for one in found:
        assert (one["length"], one["n"] >= DOCUMENTS, one["cut"], one["windowed"]) == (256, True, 0, 0)
        assert one["versions"]["lm_eval"]


def test_harness_says_what_was_cut_and_goes_on_from_its_store(call: Call, given: tuple[object, ...]) -> None:
    code, out, err = call("harness", "tiny_choice", "tiny_text", "--limit", 2, *given)
    assert code == 0, err
    assert "lm-eval/tiny_choice" in out
    assert "nats_per_word" in out
    assert "4 of 4 samples measured now" in err
    long = sum(length > WINDOW for length in LENGTHS[:2])
    assert f"lm-eval/tiny_choice: {long} of 2 prompts are longer than {WINDOW} tokens and lost their beginning" in err
    assert f"lm-eval/tiny_text: {long} of 2 texts are longer than {WINDOW} tokens and were read in windows" in err
    code, _, err = call("harness", "tiny_choice", "tiny_text", "--limit", 2, *given)
    assert code == 0, err
    assert "0 of 4 samples measured now" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny_choice", "--method", "nune"), "unknown method 'nune'; did you mean 'none'?"),
        (("tiny_choice", "--metric", "f1"), "lm-eval/tiny_choice does not measure 'f1'; it has acc"),
        (("tiny_choice", "--metadata", "{"), "--metadata '{' is no JSON"),
        (("tiny_choice", "--metadata", "[1]"), "--metadata '[1]' is no JSON object"),
        (("tiny_choice", "--batch-size", "0"), "'--batch-size'"),
        (("tiny_reply", "--target-length", "4"), "leaves no room for a prompt"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, given: tuple[object, ...], arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = call("harness", *arguments, *given)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
