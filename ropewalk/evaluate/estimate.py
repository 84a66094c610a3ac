"""What a sweep will take, said before it begins."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel

from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.store import Store
from ropewalk.evaluate.unit import Unit
from ropewalk.models.memory import required_memory

# Tokens read to time the model: enough that a matrix product is as fast as in a long document.
PROBE = 512


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        samples: that are not stored yet; `tokens`: of their documents together.
        seconds: of one worker, wall time.
        measured: for how many of them `seconds` is the mean of stored samples alike; the others are reckoned from
            operations and the speed of a short probe, and can be off by half: methods differ, and answers are extra.
        bytes: of memory for the longest one, weights included, and on a CPU the process itself.
    """

    samples: int
    tokens: int
    seconds: float
    measured: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


# Mean seconds of stored samples by task, length and label.
Known = dict[tuple[str, int, str], float]


def known_seconds(store: Store, model: str) -> Known:
    """What samples of a model took so far."""
    seen: dict[tuple[str, int, str], list[float]] = {}
    for row in store.rows(model=model):
        seen.setdefault((row.key.task, row.key.length, row.label), []).append(row.seconds)
    return {place: fmean(seconds) for place, seconds in seen.items()}


def estimate(bench: Bench, pending: Sequence[Unit], known: Known) -> Estimate:
    """Reckon what units that are not stored will take."""
    if not pending:
        return Estimate(0, 0, 0.0, 0, 0)
    alike = [known[place] for unit in pending if (place := _place(bench, unit)) in known]
    strange = [unit for unit in pending if _place(bench, unit) not in known]
    rate = _rate(bench, strange[0]) if strange else 1.0
    longest = max(unit.length for unit in pending)
    return Estimate(
        samples=len(pending),
        tokens=sum(unit.length for unit in pending),
        seconds=sum(alike) + sum(_readings(bench, unit) for unit in strange) / rate,
        measured=len(alike),
        bytes=required_memory(bench.model.config, longest, bench.model.dtype, on_cpu=bench.model.device.type == "cpu"),
    )


def _place(bench: Bench, unit: Unit) -> tuple[str, int, str]:
    return unit.task, unit.length, bench.key(unit).control or unit.method


def _readings(bench: Bench, unit: Unit) -> float:
    return bench.task(unit.task).readings * operations(bench.model, unit.length)


def operations(model: PreTrainedModel, length: int) -> float:
    """Multiplications and additions of reading `length` tokens with their losses.

    2 * parameters * length for the matrices (all of a mixture of experts, though few are used), and 4 * layers *
    heads * head_dim for each of the length^2 / 2 causal pairs.
    """
    config = model.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    matrices = sum(parameter.numel() for parameter in model.parameters()) - (0 if tied else embedding.numel())
    pairs = length * length / 2
    return 2.0 * matrices * length + 4.0 * config.num_hidden_layers * config.num_attention_heads * head_dim * pairs


def _rate(bench: Bench, unit: Unit) -> float:
    """Operations per second, measured on the first tokens of a document with whatever is attached."""
    ids = bench.document(unit).ids[:PROBE]
    prefill(bench.model, ids)
    began = time.perf_counter()
    prefill(bench.model, ids)
    return operations(bench.model, len(ids)) / (time.perf_counter() - began)
