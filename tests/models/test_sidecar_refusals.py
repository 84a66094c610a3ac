"""A saved extension that is incomplete, altered or for another model is refused, and saving harms nothing."""

import json
from pathlib import Path

import psutil
import pytest
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import ropewalk
from ropewalk.errors import ModelError, ProfileError, RopewalkError
from ropewalk.models import sidecar
from ropewalk.models.loading import load_model
from tests.architectures import WORKS
from tests.models.saved import TARGET, content, save_base, tiny_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny Llama in a folder."""
    return save_base(tmp_path_factory.mktemp("llama") / "base", "llama")


# What is done to a saved folder, and what the refusal says.
TAMPERED = {
    "no manifest": (lambda f: (f / "ropewalk_config.json").unlink(), "has no ropewalk_config.json"),
    "half a manifest": (lambda f: cut(f / "ropewalk_config.json"), "malformed"),
    "a list": (lambda f: (f / "ropewalk_config.json").write_text("[]"), "malformed"),
    "newer format": (lambda f: edit(f, format=2), "upgrade"),
    "a field less": (lambda f: edit(f, drop="backend"), "malformed"),
    "length of the wrong type": (lambda f: edit(f, target_length="256"), "wanted int"),
    "half a plan": (lambda f: cut(f / "plan.json"), "not the file that was saved"),
    "no plan": (lambda f: (f / "plan.json").unlink(), "missing"),
    "another method": (lambda f: edit(f, method="rerope:window=8"), "does not give the plan"),
    "no method": (lambda f: edit(f, method="rerop"), "did you mean 'rerope'"),
    "path out of the folder": (lambda f: edit(f, method="dpe:profile=../dpe.json"), "not a file of the sidecar"),
    "file out of the folder": (lambda f: edit(f, files={"../plan.json": "0"}), "missing"),
}


def cut(file: Path) -> None:
    file.write_text(file.read_text()[: file.stat().st_size // 2])


def edit(folder: Path, drop: str = "", **values) -> None:
    file = folder / "ropewalk_config.json"
    value = json.loads(file.read_text()) | values
    value.pop(drop, None)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize("name", TAMPERED)
def test_folder_that_was_changed_is_refused(base, tmp_path, name) -> None:
    change, reason = TAMPERED[name]
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    change(tmp_path / "saved")
    with pytest.raises(RopewalkError, match=reason):
        ropewalk.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "llama9"}, "of type 'llama9', which the installed transformers does not know; upgrade"),
        ({"hidden_size": "wide"}, "the saved model's configuration is malformed"),
    ],
)
def test_full_folder_whose_configuration_cannot_be_read_is_refused(base, tmp_path, change, reason) -> None:
    model, tokenizer = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved", full=True, tokenizer=tokenizer)
    own = json.loads((tmp_path / "saved" / "ropewalk_config.json").read_text())["base_config"]
    edit(tmp_path / "saved", base_config=own | change)
    with pytest.raises(ProfileError, match=reason):
        ropewalk.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers 2 against 3"),
        ({"num_key_value_heads": 4}, "num_key_value_heads 2 against 4"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}, "base 10000.0 against 5000.0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "scaling None against linear"),
    ],
)
def test_another_model_is_refused(base, tmp_path, monkeypatch, change, reason) -> None:
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    other = AutoConfig.from_pretrained(base)
    for name, value in change.items():
        setattr(other, name, value)
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    monkeypatch.setattr(sidecar, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ProfileError, match=reason):
        ropewalk.from_pretrained(tmp_path / "saved", base=str(tmp_path / "other"))


def test_length_beyond_the_memory_is_refused_before_weights_are_loaded(base, tmp_path, monkeypatch) -> None:
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "rerope", target_length=TARGET) as extension:
        ropewalk.save(extension, tmp_path / "saved")
    little = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ModelError, match="GiB are available"):
        ropewalk.from_pretrained(tmp_path / "saved")


def test_save_that_fails_leaves_nothing(base, tmp_path, monkeypatch) -> None:
    model, tokenizer = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        monkeypatch.setattr(type(model), "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            ropewalk.save(extension, tmp_path / "saved", full=True, tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_save_overwrites_nothing(base, tmp_path) -> None:
    model, _ = load_model(str(base))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    (tmp_path / "empty").mkdir()
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        with pytest.raises(ModelError, match="exists already"):
            ropewalk.save(extension, tmp_path / "mine")
        ropewalk.save(extension, tmp_path / "empty")
    assert content(tmp_path / "mine") == {"notes.txt": b"keep"}
    assert "plan.json" in content(tmp_path / "empty")


def test_model_that_was_not_loaded_needs_its_base_named(tmp_path) -> None:
    with ropewalk.extend(WORKS["llama"](), "dpe", target_length=TARGET) as extension:
        with pytest.raises(ModelError, match="give base="):
            ropewalk.save(extension, tmp_path / "saved")
        with pytest.raises(ModelError, match="give tokenizer="):
            ropewalk.save(extension, tmp_path / "saved", full=True)
        ropewalk.save(extension, tmp_path / "saved", base="no/where")
    with pytest.raises(ModelError, match="no/where"):
        ropewalk.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("version", ["5.18.3", "6.0.0"])
def test_untested_transformers_is_refused(base, tmp_path, monkeypatch, version) -> None:
    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(ModelError, match=rf"transformers {version} is installed.*pip install"):
        ropewalk.from_pretrained(tmp_path)


def test_folder_that_is_not_there_is_one_clear_line(tmp_path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a repository"):
        ropewalk.from_pretrained(tmp_path / "nowhere")
