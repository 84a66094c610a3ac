"""`ropewalk export`."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from ropewalk.models import loading
from tests.cli.conftest import WINDOW, Call, Run
from tests.models.test_loading import save_gguf
from tests.models.test_loading import tiny_model as gguf_model

TARGET = 4 * WINDOW


def test_export_to_hf_tells_what_stock_transformers_makes_of_it(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("export", "yarn", "--model", tiny_model, "--to", "hf", "-o", out, "--target-length", TARGET, "--json")
    assert done.returncode == 0, done.stderr
    (written,) = json.loads(done.stdout)["files"]
    assert (written["path"], written["length"], written["form"]) == (str(out), TARGET, "yarn")
    assert written["logit_difference"] < 1e-6
    assert AutoConfig.from_pretrained(out).rope_parameters["factor"] == 4


def test_export_of_a_method_that_depends_on_the_length_writes_buckets(call: Call, tiny_model, tmp_path) -> None:
    out = tmp_path / "out"
    code, told, err = call("export", "dynamic-ntk", "-m", tiny_model, "--to", "hf", "-o", out, "--target-length", 256)
    assert code == 0, err
    lines = told.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{out / 'length-128'}: up to 128 tokens, rope type default")
    assert "logits of stock transformers differ by" in lines[1]


def test_export_to_gguf_writes_a_file(call: Call, tmp_path: Path) -> None:
    source, out = save_gguf(tmp_path / "tiny.gguf", gguf_model()), tmp_path / "out"
    code, told, err = call("export", "yarn", "-m", source, "--to", "gguf", "-o", out, "--target-length", 512, "--json")
    assert code == 0, err
    (written,) = json.loads(told)["files"]
    assert Path(written["path"]) == out / "tiny-ropewalk.gguf"
    assert Path(written["path"]).is_file()
    assert written["form"] == "one factor for each pair"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dpe", "--to", "hf"), "changes positions"),
        (("self-extend+yarn", "--to", "hf"), "ropewalk.from_pretrained"),
        (("yarn:log_n=true", "--to", "hf"), "scales logits"),
        (("none", "--to", "hf"), "nothing to export"),
        (("yarn", "--to", "onnx"), "--to hf or --to gguf"),
        (("yarn", "--to", "gguf"), "convert_hf_to_gguf.py"),
        (("yarm", "--to", "hf"), "did you mean 'yarn'"),
        (("yarn", "--to", "hf", "--target-length", "soon"), "'soon' is not a length"),
        (("yarn", "--to", "hf", "--model", "no/such/folder"), "no/such/folder"),
        (("yarn",), "Missing option '--to'"),
    ],
)
def test_bad_input_is_refused_before_weights_are_loaded(
    call: Call, tiny_model: Path, tmp_path: Path, monkeypatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    options = ("--output", tmp_path / "out", "--target-length", TARGET, "--model", tiny_model)
    code, out, err = call("export", *options, *arguments)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_folder_that_is_not_empty_is_refused(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    code, _, err = call("export", "yarn", "-m", tiny_model, "--to", "hf", "-o", tmp_path, "--target-length", TARGET)
    assert code == 2
    assert "exists already" in err.splitlines()[-1]
