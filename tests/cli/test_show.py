"""`ropewalk show`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.methods import parse
from ropewalk.models.loading import load_config
from ropewalk.models.spec import spec_from_config
from ropewalk.plan import Plan
from tests.cli.conftest import Call, Run


def test_show_gives_the_plan_as_json_without_loading_weights(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    for part in tiny_model.glob("*.json"):
        (tmp_path / part.name).write_text(part.read_text())
    assert not list(tmp_path.glob("*.safetensors"))
    done = run("show", "self-extend:group=8", "--model", tmp_path, "--length", "256", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    spec = spec_from_config(load_config(str(tiny_model)))
    assert Plan.from_json(shown["plan"], {}) == parse("self-extend:group=8").plan(spec, 256)
    assert parse(shown["method"]).plan(spec, 256) == parse("self-extend:group=8").plan(spec, 256)
    assert shown["why"]["group"] == {"value": "8", "reason": "given"}
    assert shown["pretrained_length"] == 64


def test_show_draws_the_plan_and_says_why(call: Call, tiny_model: Path) -> None:
    code, out, _ = call("show", "yarn", "--model", tiny_model, "--length", "256", "--pair", "1")
    assert code == 0
    assert "factor = 4: " in out
    assert "pair 1 of 4" in out
    assert "all m >= n" in out


@pytest.mark.parametrize("name", ["plan.png", "plan.json"])
def test_show_saves_a_picture_or_the_plan(call: Call, tiny_model: Path, tmp_path: Path, name: str) -> None:
    code, _, err = call("show", "dca", "--model", tiny_model, "--length", "256", "--output", tmp_path / name)
    assert code == 0, err
    assert (tmp_path / name).stat().st_size > 0
    if name == "plan.json":
        Plan.load(tmp_path / name)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("self-extnd", (), "did you mean 'self-extend'?"),
        ("self-extend:grup=4", (), "did you mean 'group'?"),
        ("self-extend:group=four", (), "wants a whole number, got 'four'"),
        ("dpe:scales=1/2/4", (), "3 scales do not fit the model's 4 rotary pairs"),
        ("dpe:profile=nowhere.json", (), "nowhere.json"),
        ("self-extend:window=60", ("--length", "32"), "window 60 is larger than the target of 32 tokens"),
        ("string", ("--length", "1m"), "reaches"),
        ("none", ("--length", "many"), "'many' is not a length"),
        ("none", ("--pair", "9"), "pair 9 does not exist; this model has pairs 0 to 3"),
        ("none", ("--layer", "9"), "layer 9 does not exist"),
        ("none", ("--output", "plan.txt"), "must end in .json, .png"),
        ("none", ("--output", "no/where/plan.png"), "there is no folder"),
        ("none", ("--model", "no/such/folder"), "no/such/folder"),
    ],
)
def test_bad_input_is_one_clear_line(
    call: Call, tiny_model: Path, method: str, options: tuple[str, ...], message: str
) -> None:
    code, out, err = call("show", method, "--model", tiny_model, "--length", "256", *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")


def test_malformed_profile_is_one_clear_line(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "broken.json"
    profile.write_text("{not json")
    code, _, err = call("show", f"dpe:profile={profile}", "--model", tiny_model, "--length", "256")
    assert code == 2
    assert err.startswith("error: ") and "broken.json" in err and err.count("\n") == 1


def test_pretrained_length_can_be_given(call: Call, tiny_model: Path) -> None:
    code, out, _ = call("show", "pi", "--model", tiny_model, "--length", 256, "--pretrained-length", 32, "--json")
    assert code == 0
    assert json.loads(out)["why"]["factor"]["value"] == "8"


def test_length_is_required(call: Call) -> None:
    code, _, err = call("show", "none")
    assert (code, err) == (2, "error: Missing option '--length'.\n")


def test_show_needs_no_model_code(tiny_model: Path) -> None:
    """Nothing of the modelling code is imported, so nothing can load weights."""
    code = f"""
import sys
from ropewalk.cli import main
assert main(["show", "dpe", "--model", {str(tiny_model)!r}, "--length", "1k", "--json"]) == 0
sys.exit("transformers.models.llama.modeling_llama" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
