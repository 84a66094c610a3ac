"""`save` and `from_pretrained`: an extension in a folder of its own, beside the model or together with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import ModelError, ProfileError
from ropewalk.models.export.buckets import buckets, inexpressible
from ropewalk.models.export.hf import CONFIG, longest
from ropewalk.models.export.rope import express, written
from ropewalk.models.folder import fresh_folder
from ropewalk.models.huggingface import Extension, extend
from ropewalk.models.loading import load_config, load_model, load_tokenizer
from ropewalk.models.manifest import PLAN, Manifest, config_of, require_plan, rotary, sha256, shape
from ropewalk.models.method_files import pack, unpack
from ropewalk.models.seam import name_of
from ropewalk.models.versions import require_transformers, versions

ARRAYS = "method.safetensors"  # what the text of a method cannot hold

# Stands where a rope type is wanted, so that whatever reads it stops and shows it: transformers with a KeyError when it
# builds the model, vLLM with "Unknown RoPE scaling type".
REFUSAL = "load this folder with ropewalk.from_pretrained"


def save(
    extension: Extension,
    folder: str | Path,
    *,
    full: bool = False,
    base: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write an extension so that `from_pretrained` attaches it again, here or on another machine.

    By default a sidecar, as an adapter is: the filled method, its plan and profile, and what the model must be like.
    The model itself is left where it is. A full folder holds the model too. There a method that is one frequency table
    stands in the configuration as every engine reads it, and runs without ropewalk; any other is marked so that
    loading it without ropewalk is an error instead of plain RoPE.

    Args:
        extension: what `extend` returned.
        folder: a new folder.
        full: write the model's weights, configuration and tokenizer too.
        base: where the model is to be loaded from (a hub id, a folder, a .gguf file, package:NAME); what it was loaded
            from when left out.
        tokenizer: for a full folder; that of `base` when left out.

    Returns: the folder.

    Raises:
        ModelError: a folder that exists, or a model that does not say where it came from.
    """
    require_transformers()
    model = extension.model
    source = base or model.config._name_or_path
    if not source and not full:
        raise ModelError(f"this {name_of(model)} does not say where it was loaded from; give base=, or full=True")
    if source and Path(source).exists():
        source = str(Path(source).resolve())
    if full and tokenizer is None:
        if not source:
            raise ModelError(f"this {name_of(model)} does not say where its tokenizer is; give tokenizer=")
        tokenizer = load_tokenizer(source)
    with fresh_folder(folder) as partial:
        arrays: dict[str, np.ndarray] = {}
        method = pack(extension.method, partial, arrays)
        if arrays:
            safetensors.numpy.save_file(arrays, partial / ARRAYS)
        extension.plan.save(partial / PLAN)
        files = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        own = _save_model(extension, partial, tokenizer) if tokenizer is not None and full else None
        Manifest(
            method=method,
            requested=str(extension.requested),
            target_length=extension.target_length,
            pretrained_length=extension.spec.pretrained_length,
            backend=extension.asked_backend,
            base=source,
            shape=shape(model.config),
            rotary=rotary(extension.spec),
            versions=versions(),
            files=files,
            base_config=own,
        ).save(partial)
    return Path(folder)


def from_pretrained(
    source: str | Path,
    *,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    backend: str | None = None,
    verify: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Extension]:
    """Load what `save` wrote: the model, its tokenizer, and the extension attached to it.

    What can be refused is refused before weights are loaded. Nothing in the folder is executed.

    Args:
        source: the folder, or the id of a repository on the hub that holds one.
        base: where to load the model from, for a sidecar whose own base has moved.
        dtype: of the weights; the checkpoint's when left out.
        device: where the model goes before the extension chooses a backend for it; the CPU when left out.
        backend: attention backend; the one that was asked for when it was saved, when left out.
        verify: run the identity self-test first.

    Raises:
        ProfileError: a folder that is incomplete, altered, of a newer format or for another model.
        ModelError: a model that is not there, or whose length does not fit into memory.
    """
    require_transformers()
    folder = _fetched(source)
    saved = Manifest.load(folder)
    try:
        arrays = safetensors.numpy.load_file(folder / ARRAYS) if ARRAYS in saved.files else {}
    except SafetensorError as error:
        raise ProfileError(f"cannot read {str(folder / ARRAYS)!r} ({error}); save it again") from error
    method = unpack(saved.method, folder, arrays)
    if saved.base_config is not None and base is None:
        place = str(folder)
        config = config_of(saved.base_config)
    else:
        place = base or saved.base
        config = load_config(place)
    saved.require_shape(config, place)
    model, tokenizer = load_model(place, dtype=dtype, target_length=saved.target_length, config=config)
    if device is not None:
        model.to(device)
    extension = extend(
        model,
        method,
        target_length=saved.target_length,
        backend=backend or saved.backend,
        verify=verify,
        pretrained_length=saved.pretrained_length,
    )
    try:
        saved.require_rotary(extension.spec, place)
        require_plan(folder, extension.plan)
    except ProfileError:
        extension.remove()
        raise
    return model, tokenizer, extension


def _save_model(extension: Extension, folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Write weights, tokenizer and a configuration that fits the method; returns the model's own configuration."""
    extension.model.save_pretrained(folder)
    with longest(tokenizer, extension.target_length):
        tokenizer.save_pretrained(folder)
    own: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    changed = _configured(extension, own)
    (folder / CONFIG).write_text(json.dumps(changed, indent=2) + "\n")
    if changed["architectures"] != own["architectures"] and _builds(folder):
        raise ModelError(
            f"{name_of(extension.model)} cannot be saved in full with {extension.method.name}: without ropewalk, "
            "transformers would run it as plain RoPE; save it without full=True"
        )
    return own


def _builds(folder: Path) -> bool:
    """True when stock transformers makes a model of the folder's configuration."""
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config)
    except (KeyError, ValueError, StrictDataclassError):
        return False
    return True


def _configured(extension: Extension, own: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a full folder: with the table in it, or one that only ropewalk builds a model from."""
    static = not extension.method.length_dependent and inexpressible(extension.plan) is None
    if static and extension.plan.table == extension.spec.table:
        return own
    if static:
        try:
            (bucket,) = buckets(extension.method, extension.spec, extension.target_length)
            rope = express(extension.model.config, extension.spec, extension.method, bucket)
            return written(own, rope.parameters, rope.max_position_embeddings)
        except ModelError:  # the family's configuration cannot carry the table; ropewalk can
            pass
    return refusing(own)


def refusing(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json that no engine builds a model from: an unknown rope type, under every name, and architecture."""
    parameters = config["rope_parameters"]
    changed = config | {"architectures": [f"Ropewalk{name}" for name in config.get("architectures") or [""]]}
    if "rope_type" not in parameters:  # one set for each type of layer, which older engines have no name for
        marked = {kind: one and one | {"rope_type": REFUSAL} for kind, one in parameters.items()}
        return changed | {"rope_parameters": marked}
    marked = parameters | {"rope_type": REFUSAL}
    return changed | {"rope_parameters": marked, "rope_scaling": {**marked, "type": REFUSAL}}


def _fetched(source: str | Path) -> Path:
    """The folder on disk; a hub repository is fetched."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        return Path(snapshot_download(str(source)))
    except (OSError, ValueError, HFValidationError, HTTPError) as error:
        raise ModelError(
            f"{str(source)!r} is neither a folder nor a repository that the hub answers for ({type(error).__name__}); "
            "give a folder written by ropewalk.save"
        ) from error
