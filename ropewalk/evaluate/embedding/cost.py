"""What searches will take, said before they begin."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ropewalk.evaluate.estimate import Estimate, Known

if TYPE_CHECKING:
    from ropewalk.evaluate.embedding.bench import EmbeddingBench, Search

# Tokens read to time the model.
PROBE = 512


def estimate(bench: "EmbeddingBench", pending: "Sequence[Search]", known: Known) -> Estimate:
    """Reckon what searches that are not stored will take.

    Those like stored ones take as long as they did. The others are reckoned from operations and the speed of a short
    probe, and can be off by half; parallel windows, which never read a long text whole, take less.
    """
    queries, documents = bench.setup.queries, bench.setup.candidates
    asked = [search for search in pending if not search.control]
    if not asked:
        return Estimate(len(pending) * queries, 0, 0.0, 0, 0)
    alike = [search for search in asked if (search.task, search.length, search.label) in known]
    strange = [search for search in asked if search not in alike]
    seconds = sum(queries * known[search.task, search.length, search.label] for search in alike)
    if strange:
        rate = _rate(bench)
        seconds += sum(documents * operations(bench, _read(bench, search)) / rate for search in strange)
    longest = max(_read(bench, search) for search in asked)
    return Estimate(
        samples=len(pending) * queries,
        tokens=sum(documents * _read(bench, search) for search in asked),
        seconds=seconds,
        measured=len(alike) * queries,
        bytes=_bytes(bench, longest),
    )


def _read(bench: "EmbeddingBench", search: "Search") -> int:
    """Tokens that are read of a document: the stock model cuts it."""
    from ropewalk.evaluate.embedding.bench import STOCK

    if search.method != STOCK or bench.limit is None:
        return search.length
    return min(search.length, bench.limit)


def operations(bench: "EmbeddingBench", tokens: int) -> float:
    """Multiplications and additions of reading a text: 2 for each weight of the layers and token, and 4 * layers *
    width for each pair of tokens."""
    config = bench.network.config.get_text_config()
    held = sum(parameter.numel() for parameter in bench.network.parameters())
    matrices = held - bench.network.get_input_embeddings().weight.numel()
    return 2.0 * matrices * tokens + 4.0 * config.num_hidden_layers * config.hidden_size * tokens**2


def _bytes(bench: "EmbeddingBench", tokens: int) -> int:
    """Weights, and what one layer holds of a text: some twelve states of its width."""
    size = bench.network.dtype.itemsize
    held = sum(parameter.numel() for parameter in bench.network.parameters())
    return int(size * (held + 12 * tokens * bench.network.config.get_text_config().hidden_size))


def _rate(bench: "EmbeddingBench") -> float:
    """Operations per second of the stock model on a text of PROBE tokens or what it reads of it."""
    tokens = min(PROBE, bench.limit or PROBE)
    text = "the " * tokens
    bench.model.encode([text], show_progress_bar=False)
    began = time.perf_counter()
    bench.model.encode([text], show_progress_bar=False)
    return operations(bench, tokens) / (time.perf_counter() - began)
