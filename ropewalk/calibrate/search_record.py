"""What a search's profile says of how it was made."""

from dataclasses import asdict
from typing import Any

from ropewalk.calibrate.measured import Measured
from ropewalk.calibrate.trials import FIRST_SEED
from ropewalk.evaluate import corpus as corpora
from ropewalk.profile import Fingerprint
from ropewalk.rotary import RotarySpec


def about(spec: RotarySpec, corpus: str) -> dict[str, Any]:
    """What a run file records beside the request: a search of another model or text does not go on from it."""
    return {"fingerprint": asdict(Fingerprint.of(spec)), "corpus_sha256": corpora.sha256(corpus)}


def provenance(
    request: dict[str, Any], spec: RotarySpec, measured: Measured, *, readings: int, known: dict[str, Any]
) -> dict[str, Any]:
    """Model, request, budget, trials, prompts and versions.

    Args:
        readings: of the budget.
        known: from `about`.
    """
    rows = list(measured.rows.values())
    first = rows[0]
    target = request["target_length"]
    return {
        "model": request["model"],
        "model_sha256": first.key.model_sha256,
        "tokenizer_sha256": first.key.tokenizer_sha256,
        "dtype": first.key.dtype,
        "backend": first.key.backend,
        "pretrained_length": spec.pretrained_length,
        "target_length": target,
        "request": request,
        "task_protocol": first.key.protocol,
        "corpus_sha256": known["corpus_sha256"],
        "seed": FIRST_SEED + request["seed"],
        "budget": {"given": request["budget"], "readings": readings, "tokens": readings * target},
        "read": {
            "readings": len(rows),
            "tokens": sum(row.key.length for row in rows),
            "seconds": sum(row.seconds for row in rows),
            "cpu_seconds": sum(row.cpu_seconds for row in rows),
        },
        "trials": measured.trials(),
        "prompts": sorted({row.prompt_sha256 for row in rows}),
        "versions": first.versions,
    }
