"""The network of a published CLEX checkpoint, out of a local folder as its authors saved it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX
from ropewalk.rotary import RotarySpec

UP, DOWN = "ode_up_proj", "ode_down_proj"  # the ends of the authors' names: model.clex_layer.proj_func....
FEATURE_BASE = 10000.0  # of nu in the authors' code, whatever the model's base is


def read_published(folder: str | Path, spec: RotarySpec, *, activation: str | None = None) -> CLEX:
    """The method of a checkpoint of DAMO-NLP-SG/CLEX: its weights, T, activation and log-n scale, in the authors' form.

    Only the two matrices of the network are read, of whatever else the files hold; nothing is executed. Save it with
    `method.to_profile(spec).save(path)`, and use it as `clex:profile=path`.

    Args:
        folder: with config.json and the weights, safetensors or torch's .bin, sharded or not.
        spec: the rotary embedding of the model that the network is for.
        activation: "tanh" or "silu", where the configuration has no `act` (the first releases have none).

    Raises:
        ProfileError: a folder without a CLEX network, or one that does not say its activation.
        MethodError: a network that does not fit the model.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text())
        scaling = config["rope_scaling"]
        if scaling["type"] != "clex":
            raise ProfileError(f"{str(folder)!r} is a checkpoint with {scaling['type']!r} scaling, wanted 'clex'")
        longest = int(scaling["max_factor"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProfileError(
            f"{str(folder)!r} has no config.json with the rope_scaling of CLEX ({error!r}); give the folder of a "
            "published CLEX checkpoint"
        ) from error
    sigma = activation or scaling.get("act")
    if sigma is None:
        raise ProfileError(f"{str(folder)!r} does not say its activation (rope_scaling.act); give tanh or silu")
    weights = _weights(folder)
    method = CLEX(
        up=Grid(weights[UP].double().numpy()),
        down=Grid(weights[DOWN].double().numpy()),
        max_factor=longest,
        activation=sigma,
        gate=math.inf,
        feature_base=FEATURE_BASE,
        log_n=bool(config.get("log_scale", False)),
    )
    try:
        return method.resolve(spec, spec.pretrained_length)
    except MethodError as error:
        raise MethodError(f"the checkpoint {str(folder)!r} is for another model: {error}") from error


def _weights(folder: Path) -> dict[str, Tensor]:
    """The two matrices, float32, by the end of their names."""
    found: dict[str, Tensor] = {}
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        try:
            found |= dict(_matching(file))
        except (OSError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise ProfileError(f"cannot read the weights {str(file)!r} ({error}); download them again") from error
    if missing := sorted({UP, DOWN} - set(found)):
        raise ProfileError(f"{str(folder)!r} has no weights that end in {missing}; give a published CLEX checkpoint")
    return found


def _matching(file: Path) -> Iterator[tuple[str, Tensor]]:
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no mapping
                if name.endswith((UP, DOWN)):
                    yield name.rpartition(".")[2], opened.get_tensor(name).float()
        return
    loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    for name, tensor in loaded.items():
        if name.endswith((UP, DOWN)):
            yield name.rpartition(".")[2], tensor.float()
