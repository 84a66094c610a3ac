"""Hashes that tell models, tokenizers, plans and prompts apart in stored samples."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.plan import Plan

# Values read of each weight, evenly spaced, its first and last among them.
SAMPLED = 64
# Of the config: what saving writes into it, and how a model is run, is not what the model is. Its class and the number
# types of its weights are hashed as they are.
_VOLATILE = {"architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


def model_sha256(model: PreTrainedModel) -> str:
    """Hash of a model's class and config, and of names, shapes, number types and SAMPLED values of its weights.

    Milliseconds, not minutes: a fine-tune that touched none of the sampled values goes unseen. An attached extension
    does not change it; another number type does.

    Raises:
        EvaluationError: weights that are not in memory.
    """
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if not name.startswith("_") and name not in _VOLATILE
    }
    digest = hashlib.sha256(_canonical([type(model).__name__, config]))
    for name, weight in sorted(model.state_dict().items()):
        if weight.is_meta:
            raise EvaluationError(f"the weight {name} is not in memory, so the model has no fingerprint; load it whole")
        digest.update(f"\n{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        picks = torch.linspace(0, max(weight.numel() - 1, 0), min(SAMPLED, weight.numel()), dtype=torch.float64)
        # Indexed in place: flattening a weight that is not contiguous would copy all of it.
        where = np.unravel_index(picks.round().long().numpy(), tuple(weight.shape) or (1,))
        at = tuple(torch.from_numpy(axis).to(weight.device) for axis in where)
        values = (weight[at] if weight.dim() else weight.reshape(1)).detach().float().cpu().numpy()
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a tokenizer's serialised form with its special tokens and chat template.

    Padding and truncation are left out: they are settings of the last call, and evaluation uses neither.
    """
    if tokenizer.is_fast:
        form: Any = json.loads(tokenizer.backend_tokenizer.to_str())
        form |= {"padding": None, "truncation": None}
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(path) for path in tokenizer.save_vocabulary(folder)]
            form = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    # What it puts around a text is not in the serialised form of every tokenizer.
    around = tokenizer("", add_special_tokens=True)["input_ids"]
    return hashlib.sha256(_canonical([form, special, around, tokenizer.chat_template])).hexdigest()


def plan_sha256(plan: Plan) -> str:
    """Hash of a plan; large arrays stand in its JSON by their own hash."""
    return hashlib.sha256(_canonical(plan.to_json({}))).hexdigest()


def prompt_sha256(ids: Sequence[int]) -> str:
    """Hash of the token ids of a prompt."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
