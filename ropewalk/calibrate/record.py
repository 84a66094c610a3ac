"""The profile that a calibration leaves, with everything that it was made from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.calibrate.axis import Setting, base_setting, method_fields
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.trials import FIRST_SEED, Trials
from ropewalk.methods.two_bands import local_window
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec

if TYPE_CHECKING:
    from ropewalk.calibrate.dpe import Found


def make_profile(
    request: Request,
    spec: RotarySpec,
    trials: Trials,
    found: "Found",
    kept: Setting,
    *,
    readings: int,
    keys: Path | None,
    about: dict[str, Any],
) -> Profile:
    """The kept setting as a profile of `dpe`, with its provenance.

    Args:
        readings: of the budget.
        keys: profile with the key dimensions, whose arrays go into this one.
        about: what the run file records beside the request.
    """
    fields = method_fields(found.axes, kept, spec)
    scales = fields["scales"]
    assert isinstance(scales, tuple)
    values: dict[str, Any] = {"window": local_window(spec, request.target_length)[0], **fields, "scales": list(scales)}
    measured = sorted(trials.rows.items(), key=lambda item: (item[0][1], item[0][0]))
    rows = [row for _, row in measured]
    first = rows[0]
    keyed = None if keys is None else Profile.load(keys)
    provenance = {
        "model": request.model,
        "model_sha256": first.key.model_sha256,
        "tokenizer_sha256": first.key.tokenizer_sha256,
        "dtype": first.key.dtype,
        "backend": first.key.backend,
        "pretrained_length": spec.pretrained_length,
        "target_length": request.target_length,
        "request": request.to_json(),
        "task_protocol": first.key.protocol,
        "corpus_sha256": about["corpus_sha256"],
        "seed": FIRST_SEED + request.seed,
        "budget": {"given": request.budget, "readings": readings, "tokens": readings * request.target_length},
        "read": {
            "readings": len(rows),
            "tokens": sum(row.key.length for row in rows),
            "seconds": sum(row.seconds for row in rows),
            "cpu_seconds": sum(row.cpu_seconds for row in rows),
        },
        "axes": [curve.to_json() for curve in found.curves],
        "uniform": list(base_setting(found.axes)),
        "confirmation": None if found.confirmation is None else _plain(found.confirmation),
        "kept": "as detected, not confirmed" if found.confirmation is None else found.confirmation.kept,
        "key_dimensions": None if keyed is None else keyed.provenance,
        "trials": [_trial(setting, document, trials) for (setting, document), _ in measured],
        "prompts": list(dict.fromkeys(row.prompt_sha256 for row in rows)),
        "versions": first.versions,
    }
    return Profile("dpe", Fingerprint.of(spec), values, {} if keyed is None else keyed.arrays, provenance)


def _plain(confirmation: Any) -> dict[str, Any]:
    return {
        "kept": confirmation.kept,
        "documents": confirmation.documents,
        "reason": confirmation.reason,
        "comparisons": list(confirmation.comparisons),
    }


def _trial(setting: Setting, document: int, trials: Trials) -> dict[str, Any]:
    row = trials.rows[setting, document]
    wanted: Sequence[str] = ("log_probability", "loss_last")
    return {
        "setting": list(setting),
        "document": document,
        "hits": sum(row.scores),
        "n": row.n,
        **{name: row.details.get(name) for name in wanted},
        "seconds": row.seconds,
    }
