"""The table that a training run leaves: JSON + safetensors, checked against the table that it grew from."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ropewalk.errors import ProfileError

VERSION = 1
SETTINGS, TABLE = "positions.json", "positions.safetensors"


@dataclass(frozen=True)
class Weights:
    """A tuned position table.

    Attributes:
        base: the method that it began as, in its text form, filled.
        stride: rows from one original row to the next.
        pretrained_length: original rows.
        target_length: tokens that it was trained up to.
        fingerprint: of the original rows.
        table: float32 [rows, hidden].
        provenance: settings, data and versions of the run.
    """

    base: str
    stride: int
    pretrained_length: int
    target_length: int
    fingerprint: str
    table: np.ndarray
    provenance: dict[str, Any]

    def require(self, table: np.ndarray) -> None:
        """Raise ProfileError unless it grew from this table, float64 [pretrained_length, hidden]."""
        if self.table.shape[1:] != table.shape[1:]:
            raise ProfileError(
                f"the tuned rows have {self.table.shape[1]} dimensions, this model's {table.shape[1]}; train again on "
                "this model"
            )
        if fingerprint(table) != self.fingerprint:
            raise ProfileError("the tuned rows were trained on another model's position table; train again on this one")

    def save(self, folder: Path) -> None:
        """Write both files into an existing folder."""
        value = {"version": VERSION, **{name: one for name, one in asdict(self).items() if name != "table"}}
        safetensors.numpy.save_file({"table": self.table}, folder / TABLE)
        (folder / SETTINGS).write_text(json.dumps(value, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Weights":
        """Read what `save` wrote; nothing in it is executed. Raises ProfileError with what is wrong."""
        folder = folder.expanduser()
        try:
            value = json.loads((folder / SETTINGS).read_text())
            if not isinstance(value, dict) or value.pop("version", None) != VERSION:
                raise ProfileError(f"{str(folder)!r} is not of version {VERSION}; train again with this version")
            return cls(**value, table=safetensors.numpy.load_file(folder / TABLE)["table"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ProfileError(
                f"cannot read tuned positions in {str(folder)!r} ({error}); give a folder that `ropewalk "
                "tune-positions` wrote"
            ) from error


def fingerprint(table: np.ndarray) -> str:
    """The hash of original rows, as float32: the same for a checkpoint in whatever precision holds it exactly."""
    return hashlib.sha256(np.ascontiguousarray(table, dtype=np.float32).tobytes()).hexdigest()
