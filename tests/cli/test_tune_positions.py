"""`ropewalk tune-positions`."""

import json
from pathlib import Path

import pytest

import ropewalk
from tests.cli.conftest import Call, Run
from tests.models.embedding.encoders import build, pipeline, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    pipeline(build("bert")).save_pretrained(str(folder))
    return folder


def test_tuned_folder_is_a_method(run: Run, folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(words(60, seed=i) for i in range(8)))
    given = ("--data", str(text), "--length", "10", "--steps", "2", "--batch", "2", "--output", str(tmp_path / "out"))
    done = run("tune-positions", "recurrent-positions", str(folder), "--target-length", "30", *given, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["method"] == f"tuned-positions:weights={tmp_path / 'out'}"
    with ropewalk.extend(pipeline(build("bert")), answer["method"]) as extension:
        assert extension.target_length == 30


def test_wrong_model_is_named_in_one_line(call: Call, tmp_path: Path) -> None:
    given = ("--target-length", "4k", "--output", str(tmp_path / "out"))
    code, out, err = call("tune-positions", "recurrent-positions", str(tmp_path / "none"), *given)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: no folder at")
