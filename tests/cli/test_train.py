"""`ropewalk train`: a run from files to a folder that the other verbs read, and what is refused."""

import json

import pytest

from ropewalk.evaluate import corpus
from tests.cli.conftest import WINDOW

WORDS = corpus.load("sotu").split()[:600]
FAST = ("--steps", 2, "--length", 16, "--batch", 2, "--warmup", 0, "--save-every", 1)


@pytest.fixture
def text(tmp_path):
    """A document of some hundred tokens."""
    path = tmp_path / "document.txt"
    path.write_text(" ".join(WORDS))
    return path


def test_clex_is_trained_from_a_text_and_its_result_is_shown(run, tiny_model, text, tmp_path) -> None:
    given = ("train", "clex", tiny_model, "--data", text, "-o", tmp_path / "out", "--target-length", 4 * WINDOW)
    done = run(*given, *FAST, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["model"] == str(tmp_path / "out") and found["method"].startswith("clex:profile=")
    shown = run("show", found["method"], "--model", found["model"], "--length", 4 * WINDOW)
    assert shown.returncode == 0 and "max_factor = 4" in shown.stdout, shown.stderr


def test_run_goes_on_with_the_same_settings_only(call, tiny_model, text, tmp_path) -> None:
    given = ("train", "pi:factor=4", tiny_model, "--data", text, "-o", tmp_path / "out", "--positions", "pose", *FAST)
    assert call(*given)[0] == 0
    code, _, err = call(*given)
    assert (code, "resume it, or give another folder" in err) == (2, True)
    assert call(*given, "--resume")[0] == 0
    code, _, err = call(*given, "--resume", "--seed", 3)
    assert (code, "has seed = 0, this one 3" in err) == (2, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("clex", "--positions", "pose"), "do not go together"),
        (("pi:factor=2", "--positions", "clex"), "do not go together"),
        (("pi:factor=2", "--positions", "e2-llm"), "train it with the method none"),
        (("pi:factor=2", "--positions", "posse"), "did you mean 'pose'"),
        (("pi:factor=2", "--network-only"), "no network to train alone"),
        (("none", "--length", "64m"), "no document has"),
        (("none", "--steps", "0"), "steps must be at least 1"),
    ],
)
def test_run_that_cannot_be_is_refused_in_one_line(call, tiny_model, text, tmp_path, given, message) -> None:
    code, _, err = call("train", given[0], tiny_model, "--data", text, "-o", tmp_path / "out", *given[1:])
    last = err.strip().splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and message in last
