"""Run benchmark cases and append self-describing rows.

    python -m benchmarks.run --lengths 8k,16k --shapes 9/3x64 --rounds 7
    python -m benchmarks.run --kind decode --lengths 8k,32k

Every round times the baseline and the case in turn; the row holds the median of the per-round ratios with p20 and p80.
A case whose output differs from the reference is not timed.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers
import typer
from rich.console import Console
from rich.table import Table

import ropewalk
from benchmarks.cases import METHODS, SHAPES, TOLERANCE, Case, decode_case, prefill_case
from ropewalk.lengths import format_length, parse_length

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, Callable[[str, str, int, str, torch.dtype], Case]] = {
    "prefill": prefill_case,
    "decode": decode_case,
    "decode-unrotated": partial(decode_case, held=False),
}


def seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure(case: Case, rounds: int) -> dict[str, object]:
    """Check a case, then time it against its baseline in interleaved rounds."""
    difference = case.check()
    if difference > TOLERANCE:
        sys.exit(f"{case.name} {case.shape} {case.length}: differs from the reference by {difference:.3g}; not timed")
    case.baseline()
    pairs = [(seconds(case.baseline), seconds(case.run)) for _ in range(rounds)]
    ratios = sorted(run / base for base, run in pairs)
    return {
        "case": case.name,
        "method": case.method,
        "shape": case.shape,
        "length": case.length,
        "ratio": round(statistics.median(ratios), 3),
        "p20": round(ratios[int(0.2 * (rounds - 1))], 3),
        "p80": round(ratios[int(0.8 * (rounds - 1) + 0.5)], 3),
        "baseline_ms": round(1e3 * statistics.median(base for base, _ in pairs), 1),
        "run_ms": round(1e3 * statistics.median(run for _, run in pairs), 1),
        "max_difference": difference,
        "rounds": rounds,
    }


def settings(backend: str, dtype: str) -> dict[str, object]:
    """What every row says about where it was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "backend": backend,
        "dtype": dtype,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "ropewalk": ropewalk.__version__,
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main(
    lengths: str = "8k,16k",
    shapes: str = ",".join(SHAPES),
    methods: str = ",".join(METHODS),
    rounds: int = 7,
    threads: int = 1,
    dtype: str = "bfloat16",
    backend: str = "blockwise",
    kind: str = "prefill",
    note: str = "",
) -> None:
    """Time prefill or decode under each method against stock sdpa + rotary, and append the rows to results/."""
    if kind not in KINDS:
        sys.exit(f"unknown kind {kind!r}; give one of {', '.join(KINDS)}")
    output = RESULTS / f"{kind.split('-')[0]}.jsonl"
    torch.set_num_threads(threads)
    table = Table("method", "shape", "length", "ratio", "p20-p80", "stock ms", "max difference")
    console = Console(stderr=True)
    with torch.inference_mode(), output.open("a") as file:
        for shape in shapes.split(","):
            for length in (parse_length(text) for text in lengths.split(",")):
                for method in methods.split(","):
                    case = KINDS[kind](method, shape, length, backend, getattr(torch, dtype))
                    row = measure(case, rounds) | settings(backend, dtype) | ({"note": note} if note else {})
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    console.print(f"{method} {shape} {format_length(length)}: {row['ratio']}")
                    table.add_row(
                        method,
                        shape,
                        format_length(length),
                        str(row["ratio"]),
                        f"{row['p20']}-{row['p80']}",
                        str(row["baseline_ms"]),
                        f"{row['max_difference']:.1e}",
                    )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
