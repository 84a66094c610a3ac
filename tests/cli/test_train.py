"""`ropewalk train`: a run from files to a folder that the other verbs read, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from ropewalk.evaluate import corpus
from tests.cli.conftest import WINDOW

FAST = ("--steps", 2, "--length", 16, "--batch", 2, "--warmup", 0, "--save-every", 1)
WORDS = corpus.load("sotu").split()[:600]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Tokens are cached beside the test."""
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


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


def test_model_without_a_tokenizer_is_trained_on_token_ids(call, tiny_model, tmp_path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    for name, length, seed in (("train", 40, 0), ("held", 200, 1)):
        rows = np.random.default_rng(seed).integers(2, 90, (6, length)).tolist()
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"ids": row}) for row in rows))
    given = ("train", "clex", bare, "--data", tmp_path / "train.jsonl", "-o", tmp_path / "out", *FAST, "--lora", 2)
    code, out, err = call(*given, "--evaluate-data", tmp_path / "held.jsonl", "--evaluate-lengths", "32,128",
                          "--evaluate-every", 1, "--log-every", 1, "--tensorboard")  # fmt: skip
    assert code == 0, err
    assert "step 1/2  loss@32 " in err and "t_mean" in err and "no tokenizer, so neither has" in err
    assert f"--model {tmp_path / 'out'} --method clex:profile=" in out
    assert {"adapter", "extension", "tensorboard", "log.jsonl"} <= {one.name for one in (tmp_path / "out").iterdir()}


def test_mixed_windows_are_trained_on_joined_or_short_documents(call, tiny_model, tmp_path) -> None:
    texts = [
        {"text": " ".join(WORDS[start : start + size])} for start, size in ((0, 30), (30, 20), (50, 200), (250, 40))
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (tmp_path / "factors.json").write_text(json.dumps({"long_factor": [1, 1.5, 3, 4]}))
    given = ("train", f"longrope:file={tmp_path / 'factors.json'}", tiny_model, "--data", tmp_path / "texts.jsonl",
             "--positions", "mixed", "--short", 0.5, "--target-length", 256, "--steps", 2, "--length", 80,
             "--batch", 2)  # fmt: skip
    code, out, err = call(*given, "-o", tmp_path / "out")
    assert code == 0 and "--method longrope:" in out, err
    code, _, err = call("train", "none", tiny_model, "--data", tmp_path / "texts.jsonl", "--join", *FAST,
                        "--length", 250, "-o", tmp_path / "joined")  # fmt: skip
    assert code == 0, err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("pi:factor=2", "--needles", "1"), "give --evaluate-lengths"),
        (("pi:factor=2", "--evaluate-lengths", "1k"), "nothing to evaluate on"),
        (("pi:factor=2", "--lora", "2", "--lora-targets", "no"), "no updates for lora_targets='no'"),
        (("pi:factor=2", "--positions", "mixed", "--length", "128"), "mixed windows train longrope"),
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
