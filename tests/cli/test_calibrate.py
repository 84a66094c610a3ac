"""`ropewalk calibrate`: the verbs, killed and resumed, and bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.calibrate.dpe import beside
from ropewalk.evaluate.store import Store
from tests.cli.conftest import Call, Run

# Two groups of two pairs: 13 settings in a round, 26 readings with the second round and the confirmation.
SMALL = ("--target", "600", "--groups", "2", "--budget", str(28 * 600))


def trials(out: Path) -> int:
    if not beside(out, "trials.db").exists():
        return 0
    with Store(beside(out, "trials.db")) as store:
        return len(store.rows())


def test_calibrated_profile_serves_the_command_line(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "p.json", tmp_path / "p.png"
    code, answer, err = call("calibrate", "dpe", tiny_model, *SMALL, "--out", out, "--figure", figure, "--json")
    assert code == 0, err
    assert figure.stat().st_size > 10_000
    [line] = answer.splitlines()
    found = json.loads(line)
    assert found["profile"] == str(out) and found["read"]["readings"] == trials(out) <= found["budget"]["readings"]
    assert "the authors' protocol reads 8 groups x 1 scales x 100 documents" in err
    code, shown, err = call("show", f"dpe:profile={out}", "--length", "600", "--model", tiny_model)
    assert code == 0 and f"profile {out}" in shown, err
    code, again, err = call("calibrate", "dpe", tiny_model, *SMALL, "--out", out)
    assert code == 0 and f"dpe:profile={out}" in again.replace("\n", "")
    assert trials(out) == found["read"]["readings"]


def test_key_dimensions_are_found_and_drawn(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "keys.json", tmp_path / "keys.png"
    command = ("calibrate", "keys", tiny_model, "--top-k", 3, "--key-documents", 2, "--out", out, "--figure", figure)
    code, answer, err = call(*command, "--json")
    assert code == 0, err
    shares = json.loads(answer)["share_of_heads"]
    assert len(shares) == 4 and sum(shares) == pytest.approx(3) and figure.stat().st_size > 10_000
    code, _, err = call("show", f"dpe:profile={out}", "--length", "600", "--model", tiny_model)
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_process_goes_on_to_the_same_profile(tiny_model: Path, tmp_path: Path, run: Run, workers: int) -> None:
    arguments = ["calibrate", "dpe", str(tiny_model), *SMALL, "--out"]
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    done = run(*arguments, whole)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "ropewalk", *arguments, str(killed), "--workers", str(workers)]
    for stop in (2, 15):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while trials(killed) < stop and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it must be killed before it is done"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = run(*arguments, killed, "--workers", workers)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(path.read_text()) for path in (whole, killed))
    assert first["values"] == second["values"]
    wanted = ("kept", "confirmation", "axes", "budget", "prompts", "uniform")
    assert {name: first["provenance"][name] for name in wanted} == {name: second["provenance"][name] for name in wanted}
    assert first["provenance"]["read"]["readings"] == trials(killed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "32", "--out", "p.json"), "below the trained window of 64"),
        (("--target", "600", "--out", "p.json", "--budget", "1200"), "holds 2 readings"),
        (("--target", "600", "--out", "p.json", "--budget", "soon"), "'soon' is no budget"),
        (("--target", "600", "--out", "p.txt"), "must end in .json"),
        (("--target", "600", "--out", "nowhere/p.json"), "there is no folder"),
        (("--target", "600", "--out", "p.json", "--groups", "3"), "4 rotary pairs do not make 3 equal groups"),
        (("--target", "600", "--out", "p.json", "--protocol", "papers"), "unknown protocol"),
        (("--target", "600", "--out", "p.json", "--corpus", "moby"), "did you mean 'moby-dick'"),
        (("--target", "600"), "Missing option '--out'"),
        (("--target", "600", "--out", "p.json", "--top-k", "5", "--budget", "60k"), "between 1 and 4"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, answer, err = call("calibrate", "dpe", tiny_model, *arguments)
    assert (code, answer) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and message in err.splitlines()[-1]
