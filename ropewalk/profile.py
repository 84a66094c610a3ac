"""Profile: what calibration found for one model, as JSON + safetensors, checked against the model it is used on."""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ropewalk.errors import ProfileError
from ropewalk.registry import unknown
from ropewalk.rotary import RotarySpec

VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """What must agree for a profile to fit a model."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int
    base: float
    pretrained_length: int

    @classmethod
    def of(cls, spec: RotarySpec) -> "Fingerprint":
        fields = {name: getattr(spec, name) for name in cls.__dataclass_fields__}
        return cls(**fields | {"pretrained_length": spec.stretched_from or spec.pretrained_length})

    def __str__(self) -> str:
        return (
            f"{self.num_layers} layers, {self.num_heads}/{self.num_kv_heads} heads of {self.head_dim} "
            f"({self.rotary_dim} rotated), base {self.base:g}, window {self.pretrained_length}"
        )


@dataclass(frozen=True)
class Profile:
    """Calibrated parameters of one method for one model.

    Attributes:
        kind: the method that the profile is for ("dpe").
        fingerprint: the model that it was made on.
        values: JSON values by field name of the method.
        arrays: larger values (key-dimension masks) by field name.
        provenance: how it was made: model name, target length, seeds, versions, trials, hashes of the prompts.
    """

    kind: str
    fingerprint: Fingerprint
    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def target_length(self) -> int | None:
        """Tokens that it was made for, where it says so."""
        target = self.provenance.get("target_length")
        return target if isinstance(target, int) else None

    def require(self, *, kind: str, spec: RotarySpec) -> None:
        """Raise ProfileError unless the profile is of this kind and was made on such a model."""
        if self.kind != kind:
            raise ProfileError(f"this is a profile for {self.kind!r}, wanted one for {kind!r}")
        have, want = self.fingerprint, Fingerprint.of(spec)
        if have != want:
            raise ProfileError(f"the profile was made on another model: {have}; this model has {want}")

    def save(self, path: str | Path) -> None:
        """Write `path` (JSON) and, where there are arrays, a safetensors file of the same name."""
        path = Path(path)
        value = {"version": VERSION, "kind": self.kind, "fingerprint": asdict(self.fingerprint)}
        value |= {"values": self.values, "provenance": self.provenance, "arrays": sorted(self.arrays)}
        if self.arrays:
            safetensors.numpy.save_file(self.arrays, path.with_suffix(".safetensors"))
        path.write_text(json.dumps(value, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Profile":
        """Read what `save` wrote; nothing in it is executed. Raises ProfileError with what is wrong."""
        path = Path(path)
        try:
            value = json.loads(path.read_text())
        except OSError as error:
            raise ProfileError(
                f"cannot read the profile {str(path)!r}: {error.strerror}; give the path of a profile"
            ) from error
        except ValueError as error:
            raise ProfileError(f"the profile {str(path)!r} is not JSON ({error}); write it again") from error
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise ProfileError(
                f"{str(path)!r} is not a profile of version {VERSION}; calibrate again with this version"
            )
        try:
            arrays = safetensors.numpy.load_file(path.with_suffix(".safetensors")) if value["arrays"] else {}
            if not isinstance(value["values"], dict):
                raise TypeError(f"values is {value['values']!r}, wanted an object")
            missing = sorted(set(value["arrays"]) - set(arrays))
            if missing:
                raise ProfileError(f"{str(path)!r} misses the arrays {missing} in its safetensors file")
            return cls(value["kind"], Fingerprint(**value["fingerprint"]), value["values"], arrays, value["provenance"])
        except (KeyError, TypeError, OSError, SafetensorError) as error:
            raise ProfileError(f"the profile {str(path)!r} is malformed ({error!r}); write it again") from error


@cache
def shipped() -> dict[str, Profile]:
    """The profiles that come with ropewalk, by name: settings that authors published, and our own calibrations."""
    folder = resources.files("ropewalk").joinpath("data", "profiles")
    with resources.as_file(folder) as path:
        return {file.stem: Profile.load(file) for file in sorted(path.glob("*.json"))}


def find_profile(place: Path) -> Profile:
    """The profile in a file, or the shipped one of that name.

    Raises:
        ProfileError: neither is there, or the file is no profile.
    """
    if not place.exists() and place.name == str(place) and not place.suffix.removeprefix(".").isalpha():
        if str(place) not in shipped():
            raise ProfileError(unknown("profile", str(place), list(shipped())) + "; or give the path of a file")
        return shipped()[str(place)]
    return Profile.load(place)


def is_shipped(place: Path) -> bool:
    """Whether `find_profile` would take a shipped profile for it."""
    return str(place) in shipped() and not place.exists()


def shipped_for(kind: str, spec: RotarySpec, target_length: int | None = None) -> tuple[str, Profile] | None:
    """The shipped profile of a kind that was made on such a model, for such a target (any, if None), with its name.

    Where several were published for one model, the one that is marked as its default is taken. Under a joined table
    there is none: what was found without one would compress twice.
    """
    if spec.stretched_from is not None:
        return None
    wanted = Fingerprint.of(spec)
    for name, profile in shipped().items():
        fits = profile.kind == kind and profile.fingerprint == wanted and profile.provenance.get("default", True)
        if fits and target_length in (None, profile.target_length):
            return name, profile
    return None
