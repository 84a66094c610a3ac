"""`ropewalk doctor`."""

import json
from pathlib import Path

from tests.cli.conftest import Call, Run


def test_doctor_finds_the_tiny_model_equal(run: Run, tiny_model: Path) -> None:
    done = run("doctor", tiny_model, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["equal"] is True
    assert report["max_abs_logit_difference"] == 0
    assert report["backends"]["reference"]["reason"] is None


def test_doctor_lists_backends_for_people(call: Call, tiny_model: Path) -> None:
    code, out, _ = call("doctor", tiny_model)
    assert code == 0
    assert "equal to the stock model" in out
    assert "reference: can run" in out


def test_missing_model_is_one_clear_line(call: Call) -> None:
    code, out, err = call("doctor", "no/such/folder")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ") and "no/such/folder" in err.splitlines()[-1]
