"""What an engine is told: the `ropewalk` entry of a model's configuration, as `--hf-overrides` puts it there."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from ropewalk.errors import MethodError
from ropewalk.lengths import parse_length
from ropewalk.registry import unknown

KEY = "ropewalk"  # of the configuration
EXAMPLE = '{"ropewalk": {"method": "dpe", "target_length": 16384}}'


@dataclass(frozen=True)
class Setting:
    """One engine's setting. Either a method or a folder that `ropewalk.save` wrote.

    Attributes:
        method: in the grammar of the command line.
        folder: of a saved extension, on the machine of every worker; brings method and lengths.
        target_length: tokens that requests may grow to; the engine's longest request when left out.
        pretrained_length: trained window, tokens, where the configuration does not say it.
        keys: "rotated": pages hold each key as the bands want it (half as much memory again for two key maps);
            "unrotated": as the model made it, rotated at every step.
        backend: that carries the plan out.
    """

    method: str | None = None
    folder: str | None = None
    target_length: int | None = None
    pretrained_length: int | None = None
    keys: str = "rotated"
    backend: str = "auto"

    def __post_init__(self) -> None:
        if (self.method is None) == (self.folder is None):
            raise MethodError(f"the ropewalk setting wants either a method or a folder, got {self.to_json()}")
        if self.folder is not None and (self.target_length or self.pretrained_length):
            raise MethodError("a saved folder brings its own lengths; leave target_length and pretrained_length out")
        if self.keys not in ("rotated", "unrotated"):
            raise MethodError(f"keys are held 'rotated' or 'unrotated', got {self.keys!r}")

    def to_json(self) -> dict[str, Any]:
        """The entry; what is left out is not written."""
        return {name: value for name, value in asdict(self).items() if value != DEFAULTS[name]}

    @classmethod
    def read(cls, value: Any) -> "Setting":
        """The setting that a configuration holds.

        Raises:
            MethodError: not an object, an unknown key, a value of the wrong type.
        """
        if not isinstance(value, dict):
            raise MethodError(f"the ropewalk setting is {value!r}, wanted an object such as {EXAMPLE}")
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise MethodError("in the ropewalk setting: " + unknown("key", str(name), known))
        given = dict(value)
        for name in ("target_length", "pretrained_length"):
            if given.get(name) is not None:
                given[name] = parse_length(str(given[name]), MethodError)
        for name in ("method", "folder", "keys", "backend"):
            if given.get(name) is not None and not isinstance(given[name], str):
                raise MethodError(f"in the ropewalk setting: {name} is {given[name]!r}, wanted text")
        return cls(**given)


DEFAULTS = {field.name: field.default for field in fields(Setting)}


def setting_of(config: Any) -> Setting | None:
    """The setting in a configuration, or None: then an engine runs as if ropewalk were not installed."""
    value = getattr(config, KEY, None)
    return None if value is None else Setting.read(value)
