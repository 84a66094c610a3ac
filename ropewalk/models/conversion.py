"""A GGUF file read once into a cached folder of safetensors, so that later loads take seconds and need no gguf."""

import hashlib
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from ropewalk.errors import ModelError
from ropewalk.folders import cache_folder

# Part of the cache key: raise it when what is written changes, so that folders made by older code are not read.
_FORMAT = 1


def converted(gguf_file: Path) -> Path:
    """The safetensors folder (config, bfloat16 weights, tokenizer) of a GGUF file, converted when it is not cached yet.

    The key is the hash of the file's content, so a moved or reinstalled file is not converted again. The folder
    appears by one rename when it is complete; a second process that wants the same file waits for the first.

    Args:
        gguf_file: an existing GGUF file of a causal language model.

    Returns:
        The folder, to be given to `from_pretrained`.

    Raises:
        ModelError: the file is not a GGUF, of an architecture that transformers cannot read, or its rotary embedding is
            scaled, which transformers would pass over.
    """
    with gguf_file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{gguf_file} is not a GGUF file (it does not begin with 'GGUF'); give a complete one")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    root = cache_folder() / "models"
    folder = root / f"{gguf_file.stem}-{digest[:16]}-{_FORMAT}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():  # another process may have finished while this one waited
            partial = root / f"{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
            print(f"ropewalk: converting {gguf_file.name} once, into {folder}", file=sys.stderr, flush=True)
            _convert(gguf_file, partial)
            partial.rename(folder)
    return folder


def _convert(gguf_file: Path, folder: Path) -> None:
    """Write config, bfloat16 weights and tokenizer of `gguf_file` to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf_file.parent),
        "gguf_file": gguf_file.name,
        "local_files_only": True,
    }
    try:
        _refuse_scaled(gguf_file)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        config = AutoConfig.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError, struct.error) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"cannot read {gguf_file}: {reason}; wanted a complete GGUF of a language model that transformers can read"
        ) from error
    # A model that was read from GGUF refuses save_pretrained, so its weights go into a fresh one.
    config.dtype = torch.bfloat16
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(quantized.state_dict())
    fresh.generation_config = quantized.generation_config
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _refuse_scaled(gguf_file: Path) -> None:
    """Raise ModelError for a scaled rotary embedding, of which transformers reads only that of gpt-oss."""
    import gguf

    from ropewalk.models.gguf_scaling import rotary_scaling

    reader = gguf.GGUFReader(gguf_file)
    field = reader.fields.get(gguf.Keys.General.ARCHITECTURE)
    scaled = rotary_scaling(reader)
    if scaled and (field is None or field.contents() != "gpt-oss"):
        raise ModelError(
            f"{gguf_file.name} carries a rotary scaling ({', '.join(scaled)}) that transformers would pass over in "
            "silence; give the checkpoint in safetensors"
        )
