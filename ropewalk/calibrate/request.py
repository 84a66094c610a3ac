"""What a calibration was asked for, and the file that lets a killed one go on with the same decisions."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ropewalk.calibrate.keys import DOCUMENTS
from ropewalk.calibrate.rule import Rule
from ropewalk.errors import EvaluationError

VERSION = 1
PROTOCOLS = ("halving", "paper")
# Evaluation reads "sotu" unless it is told otherwise: calibrating on it too would tune for the text of the test.
CORPUS = "moby-dick"


@dataclass(frozen=True)
class Request:
    """A calibration of `dpe`; plain values only.

    Attributes:
        model: its source, as the trials record it.
        target_length: tokens, the trained window or more.
        budget: see `ropewalk.calibrate.budget.parse_budget`.
        groups: of rotary pairs: a number of equal groups, borders as wavelength / trained window ("1/4,1,4,16"), or
            "auto": the finest borders of `axis.BORDERS` that the budget can decide. The paper's protocol has 8.
        protocol: "halving", or "paper" for the authors' own.
        search: what else is searched: "window", "logit_scale".
        task: whose answers are scored; the paper's protocol has "needle-four".
        documents: of each setting, in the paper's protocol.
        top_k, share, key_documents: key dimensions, see `keys.select_keys`; without `top_k` all pairs are.
        corpus, seed: of all prompts.
        rule: when candidates are as good as each other.
    """

    model: str
    target_length: int
    budget: str
    groups: str = "auto"
    protocol: str = "halving"
    search: tuple[str, ...] = ()
    task: str = "needle"
    documents: int = 100
    top_k: int | None = None
    share: str = "head"
    key_documents: int = DOCUMENTS
    corpus: str = CORPUS
    seed: int = 0
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise EvaluationError(f"unknown protocol {self.protocol!r}; give one of {', '.join(PROTOCOLS)}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"search": list(self.search)}


class Asked(Protocol):
    """A request of any calibration."""

    def to_json(self) -> dict[str, Any]:
        """Its fields by name, "budget" among them."""


class RunFile:
    """The request of a run with what was settled once: the budget in readings, and the groups.

    Every write replaces the file in one step and is on the disk when it returns.

    Args:
        path: of the file.
        request: of this command. All of it but the budget must be that of the file, where there is one. A new budget
            is settled anew; trials stay.
        about: what else must agree: the model's fingerprint, the corpus's hash.

    Raises:
        EvaluationError: a file of another run, one that cannot be read, or a folder that cannot be written.
    """

    def __init__(self, path: Path, request: Asked, about: dict[str, Any]) -> None:
        self.path = path
        # As it comes back from JSON: tuples are lists there.
        asked = json.loads(json.dumps({"version": VERSION, **request.to_json(), **about}))
        self.settled: dict[str, Any] = {}
        if path.exists():
            before = self._read()
            self.settled = before.pop("settled", {})
            differ = sorted(name for name in asked.keys() | before.keys() if asked.get(name) != before.get(name))
            if differ == ["budget"]:
                self.settled = {}
            elif differ:
                told = ", ".join(f"{name} {before.get(name)!r} against {asked.get(name)!r}" for name in differ)
                raise EvaluationError(
                    f"{str(path)!r} was begun otherwise ({told}); give the same command to go on, or another --out"
                )
        self._asked = asked
        self._write()

    def settle(self, **values: Any) -> None:
        """Remember what later commands may not decide again."""
        self.settled |= json.loads(json.dumps(values))
        self._write()

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationError(
                f"cannot read {str(self.path)!r} ({error}); remove it to begin anew: its trials are kept"
            ) from error
        if not isinstance(value, dict):
            raise EvaluationError(f"{str(self.path)!r} is no record of a calibration; give another --out")
        return value

    def _write(self) -> None:
        partial = self.path.with_name(self.path.name + ".part")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                stream.write(json.dumps(self._asked | {"settled": self.settled}, indent=1) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, self.path)
        except OSError as error:
            raise EvaluationError(
                f"cannot write {str(self.path)!r} ({error.strerror}); give an --out in a folder that can be written"
            ) from error
