"""Model, tokenizer and config from a source: a hub id, a local folder, a .gguf file or an installed package."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ropewalk.errors import ModelError
from ropewalk.models.memory import check_memory, required_memory
from ropewalk.models.source import DEFAULT_MODEL, locate

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "DEFAULT_MODEL",
    "accelerator",
    "check_memory",
    "load_config",
    "load_model",
    "load_network",
    "load_tokenizer",
    "required_memory",
]


def load_model(
    source: str,
    *,
    dtype: "torch.dtype | None" = None,
    target_length: int | None = None,
    config: "PretrainedConfig | None" = None,
    device: str = "cpu",
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A causal language model in eval mode, with its tokenizer.

    Args:
        source: a hub id, a local folder, a `.gguf` file or "package:NAME" (see `ropewalk.models.source.locate`).
        dtype: of the weights; None takes the checkpoint's (bfloat16 for a GGUF, whose weights are rounded to it).
        target_length: tokens; when given, a length that does not fit into memory is refused before loading.
        config: in place of the one that lies with the weights.
        device: to put it on, see `accelerator`.

    Raises:
        ModelError: the source is not there, cannot be read, lacks weights, or does not fit.
    """
    import torch

    place = locate(source)
    if target_length is not None:
        described = _config(source, place) if config is None else config
        check_memory(described, target_length, dtype or described.get_text_config().dtype or torch.float32)
    tokenizer = _tokenizer(source, place, config)
    return load_network(source, dtype=dtype, config=config, device=device), tokenizer


def load_network(
    source: str,
    *,
    dtype: "torch.dtype | None" = None,
    config: "PretrainedConfig | None" = None,
    device: str = "cpu",
) -> "PreTrainedModel":
    """The model of `load_model` alone; it needs no tokenizer.

    Raises:
        ModelError: the source is not there, cannot be read, or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    place = locate(source)
    with _readable(source):
        model, report = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=dtype or "auto", output_loading_info=True
        )
    if report["missing_keys"]:  # transformers would fill them with random numbers and only warn
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{source} lacks {len(missing)} weights ({missing[0]}, ...); give a complete checkpoint")
    if device != "cpu":  # where it is loaded
        model.to(device)
    return model.eval()


def accelerator() -> str:
    """ "cuda" where this process sees a CUDA device, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_config(source: str) -> "PretrainedConfig":
    """The config alone; no weights are loaded (a GGUF is converted first where it is not cached yet).

    Raises:
        ModelError: the source is not there or cannot be read.
    """
    return _config(source, locate(source))


def load_tokenizer(source: str) -> "PreTrainedTokenizerBase":
    """The tokenizer alone.

    Raises:
        ModelError: the source is not there, or has no tokenizer.
    """
    return _tokenizer(source, locate(source))


def _config(source: str, place: str) -> "PretrainedConfig":
    from transformers import AutoConfig

    with _readable(source):
        return AutoConfig.from_pretrained(place)


def _tokenizer(source: str, place: str, config: "PretrainedConfig | None" = None) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with _readable(source):
        return AutoTokenizer.from_pretrained(place, **({} if config is None else {"config": config}))


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    """Turn what transformers, the hub client and safetensors raise into one line about `source`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ModelError(f"cannot read {source}: {reason}; wanted a complete checkpoint of a language model") from error
