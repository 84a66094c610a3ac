"""The JSON of a saved extension: what it holds, how it is read, and what must agree with the model it is put on."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ropewalk.errors import ProfileError
from ropewalk.models.spec import rope_base, rope_parameters, scaling_of
from ropewalk.plan import Plan
from ropewalk.profile import Fingerprint
from ropewalk.rotary import RotarySpec

FILE = "ropewalk_config.json"
PLAN = "plan.json"
FORMAT = 1  # raise it when a folder that is written can no longer be read by older code

_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")


@dataclass(frozen=True)
class Manifest:
    """What is saved of an extension.

    Attributes:
        method: the filled method as text, its paths names of files in the folder.
        requested: the method as it was asked for, for people.
        target_length: tokens.
        pretrained_length: trained window, tokens.
        backend: the backend that was asked for.
        base: where the model was loaded from; empty when it did not say.
        shape: what the model's configuration must say, known before weights are loaded.
        rotary: what must be measured on the model.
        versions: of the packages that wrote it, for people.
        files: SHA-256 of every other file of the sidecar, by name.
        base_config: of a full folder: the model's own configuration.
    """

    method: str
    requested: str
    target_length: int
    pretrained_length: int
    backend: str
    base: str
    shape: dict[str, Any]
    rotary: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]
    base_config: dict[str, Any] | None = None

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read and check it; raises ProfileError when a part is missing, altered, malformed or of a newer format."""
        file = folder / FILE
        if not file.is_file():
            raise ProfileError(f"{str(folder)!r} has no {FILE}; give a folder that ropewalk.save has completed")
        try:
            value = json.loads(file.read_text())
            written_in = value.pop("format")
            if written_in > FORMAT:
                raise ProfileError(
                    f"{str(file)!r} has format {written_in}, this version of ropewalk reads up to {FORMAT}; upgrade it"
                )
            manifest = cls(**value)
            manifest._check_types()
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ProfileError(f"{str(file)!r} is malformed ({error!r}); save it again") from error
        for name, digest in manifest.files.items():
            part = folder / name
            if Path(name).name != name or not part.is_file() or sha256(part) != digest:
                raise ProfileError(f"{str(part)!r} is missing or not the file that was saved; save or fetch it again")
        return manifest

    def _check_types(self) -> None:
        wanted: dict[type, tuple[str, ...]] = {
            str: ("method", "requested", "backend", "base"),
            int: ("target_length", "pretrained_length"),
            dict: ("shape", "rotary", "versions", "files"),
        }
        for kind, names in wanted.items():
            for name in names:
                if not isinstance(getattr(self, name), kind):
                    raise TypeError(f"{name} is {getattr(self, name)!r}, wanted {kind.__name__}")
        if self.base_config is not None:
            self.base_config["model_type"]

    def require_shape(self, config: PretrainedConfig, place: str) -> None:
        """Raise ProfileError when the configuration at `place` is not of the model that this was saved for."""
        parameters = rope_parameters(config.get_text_config())
        known = {"base": rope_base(parameters), "scaling": scaling_of(parameters)}
        saved = {name: self.rotary.get(name) for name in known}
        _require(self.shape | saved, shape(config) | known, place)

    def require_rotary(self, spec: RotarySpec, place: str) -> None:
        """Raise ProfileError when the model's rotary embedding is not the one that this was saved for."""
        _require(self.rotary, rotary(spec), place)


def shape(config: PretrainedConfig) -> dict[str, Any]:
    """What a configuration says about the model that a method is filled for."""
    text = config.get_text_config()
    return {name: getattr(text, name, None) for name in _SHAPE}


def rotary(spec: RotarySpec) -> dict[str, Any]:
    """What must agree about the rotary embedding."""
    return asdict(Fingerprint.of(spec)) | {
        "layout": spec.layout,
        "scaling": spec.scaling,
        "layer_kinds": list(spec.layer_kinds),
        "inv_freq": list(spec.inv_freq),
    }


def require_plan(folder: Path, found: Plan) -> None:
    """Raise ProfileError when the method gives another plan than the one that was saved beside it."""
    saved = Plan.load(folder / PLAN)
    near = _near(saved.table.inv_freq.array, found.table.inv_freq.array)
    near = near and _near(saved.table.attention_scaling, found.table.attention_scaling)
    if not near or Plan(saved.bands, found.table, saved.logit_scale, saved.log_n) != found:
        raise ProfileError(
            f"the method in {str(folder / FILE)!r} does not give the plan in {PLAN}: one of them was changed, or this "
            "version of ropewalk fills it in another way; save it again"
        )


def config_of(own: dict[str, Any]) -> PretrainedConfig:
    """The model's own configuration that a full folder keeps in its manifest.

    Raises:
        ProfileError: this transformers has no such model, or its configuration is malformed.
    """
    try:
        return CONFIG_MAPPING[own["model_type"]].from_dict(own)
    except KeyError as error:
        raise ProfileError(
            f"the saved model is of type {own['model_type']!r}, which the installed transformers does not know; "
            "upgrade it"
        ) from error
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ProfileError(f"the saved model's configuration is malformed ({reason}); save it again") from error


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require(saved: dict[str, Any], found: dict[str, Any], place: str) -> None:
    differ = [
        name
        for name in sorted(saved.keys() | found.keys())
        if not (_near if name == "inv_freq" else _equal)(saved.get(name), found.get(name))
    ]
    if differ:
        told = ", ".join(f"{name} {saved.get(name)} against {found.get(name)}" for name in differ)
        raise ProfileError(
            f"the extension was saved for another model than {place!r} ({told}); give that model as base"
        )


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)


def _near(left: Any, right: Any) -> bool:
    """Frequencies differ by roundings between devices and versions."""
    return np.shape(left) == np.shape(right) and bool(np.allclose(left, right, rtol=1e-5, atol=0))
