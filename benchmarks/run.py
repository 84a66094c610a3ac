"""Run benchmark cases and append self-describing rows.

    python -m benchmarks.run --lengths 8k,16k --shapes 9/3x64 --rounds 7
    python -m benchmarks.run --kind decode --lengths 8k,32k --core 1
    python -m benchmarks.run --kind bands --methods dpe --backend compiled
    python -m benchmarks.run --device cuda --shapes 32/8x128 --lengths 32k,128k --kind decode

Every round times the baseline and the case in turn; the row holds the median of the per-round ratios with p20 and p80,
of the time on the clock and of the processor's time, which other jobs on the machine move less. A case whose output
differs from the reference is not timed.
"""

import json
import os
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
from benchmarks.cases import METHODS, SHAPES, TOLERANCE, Case, authors_case, bands_case, decode_case, prefill_case
from ropewalk.lengths import format_length, parse_length

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, Callable[[str, str, int, str, torch.dtype], Case]] = {
    "prefill": prefill_case,
    "bands": bands_case,
    "decode": decode_case,
    "decode-unrotated": partial(decode_case, held=False),
    "decode-authors": authors_case,
}


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Time on the clock and of the processor, until all that was asked of a GPU is done."""
    began, worked = time.perf_counter(), time.process_time()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - worked


def measure(case: Case, rounds: int) -> dict[str, object]:
    """Check a case, then time it against its baseline in interleaved rounds."""
    difference = case.check()
    if difference > TOLERANCE:
        sys.exit(f"{case.name} {case.shape} {case.length}: differs from the reference by {difference:.3g}; not timed")
    case.baseline()
    pairs = [(seconds(case.baseline), seconds(case.run)) for _ in range(rounds)]
    ratios = sorted(run[0] / base[0] for base, run in pairs)
    return {
        "case": case.name,
        "method": case.method,
        "shape": case.shape,
        "length": case.length,
        "against": case.against,
        "ratio": round(statistics.median(ratios), 3),
        "p20": round(ratios[int(0.2 * (rounds - 1))], 3),
        "p80": round(ratios[int(0.8 * (rounds - 1) + 0.5)], 3),
        "cpu_ratio": round(statistics.median(run[1] / base[1] for base, run in pairs), 3),
        "baseline_ms": round(1e3 * statistics.median(base[0] for base, _ in pairs), 1),
        "run_ms": round(1e3 * statistics.median(run[0] for _, run in pairs), 1),
        "max_difference": difference,
        "rounds": rounds,
        "backend": case.backend,
    }


def settings(dtype: str, device: str) -> dict[str, object]:
    """What every row says about where it was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "dtype": dtype,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
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
    backend: str = "auto",
    kind: str = "prefill",
    core: int = -1,
    device: str = "cpu",
    note: str = "",
) -> None:
    """Time prefill or decode under each method against its baseline, and append the rows to results/.

    With --core the process stays on that core of the machine.
    """
    if kind not in KINDS:
        sys.exit(f"unknown kind {kind!r}; give one of {', '.join(KINDS)}")
    if core >= 0:
        os.sched_setaffinity(0, {core})
    output = RESULTS / f"{kind.split('-')[0]}.jsonl"
    torch.set_num_threads(threads)
    table = Table("method", "shape", "length", "ratio", "p20-p80", "cpu ratio", "baseline ms", "max difference")
    console = Console(stderr=True)
    with torch.inference_mode(), output.open("a") as file:
        for shape in shapes.split(","):
            for length in (parse_length(text) for text in lengths.split(",")):
                for method in methods.split(","):
                    with torch.device(device):
                        case = KINDS[kind](method, shape, length, backend, getattr(torch, dtype))
                    row = measure(case, rounds) | settings(dtype, device) | ({"note": note} if note else {})
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    console.print(f"{method} {shape} {format_length(length)}: {row['ratio']}")
                    table.add_row(
                        method,
                        shape,
                        format_length(length),
                        str(row["ratio"]),
                        f"{row['p20']}-{row['p80']}",
                        str(row["cpu_ratio"]),
                        str(row["baseline_ms"]),
                        f"{row['max_difference']:.1e}",
                    )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
