"""`ropewalk calibrate joint` and `ropewalk calibrate longrope`: what they leave, and the same from every executor."""

import json
from pathlib import Path

import pytest

from ropewalk.calibrate.dpe import beside
from ropewalk.evaluate.store import Store
from ropewalk.profile import Profile
from tests.cli.conftest import Call, Run

TARGET = 600
DPE = ("--target", TARGET, "--groups", "2", "--budget", 28 * TARGET)
# 12 candidates on one document, and three documents of four methods
SMALL = ("--target", TARGET, "--search", "longrope2", "--population", 8, "--iterations", 1, "--documents", 1)
SMALL = (*SMALL, "--budget", 24 * TARGET)


def test_joint_search_starts_from_a_detected_profile(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    start, out = tmp_path / "p.json", tmp_path / "j.json"
    code, _, err = call("calibrate", "dpe", tiny_model, *DPE, "--out", start, "--json")
    assert code == 0, err
    command = ("calibrate", "joint", tiny_model, "--from", start, "--documents", 1, "--population", 4, "--out", out)
    code, answer, err = call(*command, "--budget", 20 * TARGET, "--json")
    assert code == 0, err
    found = json.loads(answer)
    assert found["kept"] in ("joint", "detected", "uniform") and found["read"]["readings"] <= 20
    assert {each["against"] for each in found["held_out"]["comparisons"]} == {"detected", "uniform"}
    code, shown, err = call("show", f"dpe:profile={out}", "--length", TARGET, "--model", tiny_model)
    assert code == 0 and f"profile {out}" in shown, err
    code, said, _ = call(*command, "--budget", 20 * TARGET)
    assert code == 0 and "against uniform: saves " in said.replace("\n", " ")
    code, _, err = call(*command[:4], out, *command[5:], "--budget", 20 * TARGET)
    assert code == 2 and "was not made by `ropewalk calibrate dpe`" in err


def test_searched_factors_are_exported(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "f.json", tmp_path / "exported"
    code, answer, err = call("calibrate", "longrope", tiny_model, *SMALL, "--out", out, "--json")
    assert code == 0, err
    assert json.loads(answer)["held_out"]["documents"] == 3
    code, _, err = call("export", f"longrope:profile={out}", "--to", "hf", "--model", tiny_model, "--output", folder)
    assert code == 0, err
    rope = json.loads((folder / "length-600" / "config.json").read_text())["rope_parameters"]
    values = Profile.load(out).values
    assert rope["rope_type"] == "longrope" and rope["long_factor"] == pytest.approx(values["long"])
    assert rope["attention_factor"] == pytest.approx(values["attention_factor"])


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "2"), ("--workers", "2", "--ray", "local")], ids=["processes", "ray"])
def test_every_executor_finds_the_same(tiny_model: Path, tmp_path: Path, run: Run, how: tuple[str, ...]) -> None:
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    for out, more in ((alone, ()), (shared, how)):
        done = run("calibrate", "longrope", tiny_model, *SMALL, "--out", out, *more)
        assert done.returncode == 0, done.stderr
    first, second = Profile.load(alone), Profile.load(shared)
    assert first.values == second.values
    told = [[_told(trial) for trial in one.provenance["trials"]] for one in (first, second)]
    assert told[0] == told[1]
    with Store(beside(shared, "trials.db")) as store:
        assert len(store.rows()) == second.provenance["read"]["readings"]


def _told(trial: dict) -> dict:
    return {name: value for name, value in trial.items() if name != "seconds"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "64", "--out", "f.json"), "the trained window is 64; give a longer one"),
        (("--target", "600", "--out", "f.json", "--search", "genetic"), "unknown search 'genetic'"),
        (("--target", "600", "--out", "f.json", "--knots", "9"), "give 2 to 4"),
        (("--target", "600", "--out", "f.json", "--budget", "soon"), "'soon' is no budget"),
        (("--target", "600", "--out", "f.json", "--knots", "3", "--budget", "6000"), "holds 10 readings"),
        (("--target", "600", "--out", "nowhere/f.json"), "there is no folder"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, answer, err = call("calibrate", "longrope", tiny_model, *arguments)
    assert (code, answer) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and message in err.splitlines()[-1]
