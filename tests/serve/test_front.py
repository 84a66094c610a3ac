"""What `ropewalk serve` settles before an engine starts."""

import json
import socket

import pytest

from ropewalk.errors import BackendError, ProfileError, RopewalkError
from ropewalk.serve import front
from ropewalk.serve.front import Engine, command, overrides, require_engine, require_port, restored
from ropewalk.serve.setting import Setting

VLLM = Engine("vllm", "0.32.0")


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1+cpu"])
def test_a_tested_version_is_accepted(version) -> None:
    require_engine(Engine("vllm", version), "dpe")


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0"])
def test_another_version_is_refused_with_the_remedy(version) -> None:
    with pytest.raises(BackendError, match=rf"{version} is installed.*0\.32.*pip install"):
        require_engine(Engine("vllm", version), "dpe")


def test_transformers_serves_models_and_attaches_nothing() -> None:
    transformers = Engine("transformers", "5.23.0")
    require_engine(transformers, None)
    with pytest.raises(BackendError, match=r"vLLM is not installed.*\(dpe\).*ropewalk export"):
        require_engine(transformers, "dpe")


def test_a_busy_port_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RopewalkError, match=f"port {port}.*another --port"):
            require_port("127.0.0.1", port)
    require_port("127.0.0.1", port)


def test_the_engine_is_told_the_setting_and_its_limit_is_lifted() -> None:
    told = overrides(Setting(method="dpe", target_length=256), 256)
    assert told == {"ropewalk": {"method": "dpe", "target_length": 256}, "model_max_length": 256}
    assert overrides(None, 256) == {}


def test_a_full_folder_is_restored_to_what_the_model_said(tmp_path) -> None:
    file, own = tmp_path / "config.json", {"architectures": ["A"], "hidden_size": 3}
    file.write_text(json.dumps(own | {"architectures": ["RopewalkA"], "rope_scaling": {}}))
    assert restored(tmp_path, own) == {"architectures": ["A"]}
    file.write_text(file.read_text()[:20])
    with pytest.raises(ProfileError, match=r"cannot read .*config\.json.*save or fetch the folder again"):
        restored(tmp_path, own)
    file.unlink()
    with pytest.raises(ProfileError, match=r"config\.json"):
        restored(tmp_path, own)


def test_the_command_is_the_engines_own(monkeypatch) -> None:
    monkeypatch.setattr(front.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(front.sys, "executable", "/nowhere/python")
    told = overrides(Setting(method="dpe"), 256)
    options = {"max-model-len": 256, "dtype": None}
    words = command(VLLM, "model", host="::1", port=9, told=told, options=options, rest=["--seed", "1"])
    assert words[:2] == ["/nowhere/python", "-m"]
    assert words[3:9] == ["--model", "model", "--host", "::1", "--port", "9"]
    assert words[9:11] == ["--max-model-len", "256"]
    assert json.loads(words[words.index("--hf-overrides") + 1]) == told
    assert words[-2:] == ["--seed", "1"] and "--dtype" not in words
    plain = Engine("transformers", "5")
    where = {"host": "h", "port": 9, "told": {}, "rest": []}
    words = command(plain, "model", options={"dtype": None}, **where)
    assert words == ["/bin/transformers", "serve", "model", "--host", "h", "--port", "9"]
    with pytest.raises(BackendError, match=r"`transformers serve` is told no max-model-len: leave --target-length"):
        command(plain, "model", options=options, **where)
