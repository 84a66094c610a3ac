"""Time the attention of this tree against that of another git revision, case by case.

    python -m benchmarks.compare --base HEAD~10 --lengths 8k --methods dpe

Two processes hold one case each, the one with the package of this tree, the other with that of the revision (the
benchmarks are this tree's on both sides). They take turns; a ratio below 1 is a speed-up. Neither is timed before its
output equals the float64 reference.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import typer

from benchmarks.cases import SHAPES, TOLERANCE
from benchmarks.run import KINDS, seconds
from ropewalk.lengths import format_length, parse_length

ROOT = Path(__file__).parents[1]


def serve(kind: str, method: str, shape: str, length: int, backend: str, dtype: str) -> None:
    """Check a case, say its backend, then answer every line of input with the seconds that it took."""
    with torch.inference_mode():
        case = KINDS[kind](method, shape, length, backend, getattr(torch, dtype))
        difference = case.check()
        if difference > TOLERANCE:
            sys.exit(f"{case.name}: differs from the reference by {difference:.3g}; not timed")
        print(case.backend, flush=True)
        for _ in sys.stdin:
            print(seconds(case.run)[0], flush=True)


class Side:
    """A process that runs one case with the package in `tree`."""

    def __init__(self, tree: Path, request: list[str], threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "benchmarks.compare", "--serve", json.dumps(request)]
        self._process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.backend = self._line()

    def time(self) -> float:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a side ended with status {self._process.wait()}; see above")
        return line.strip()


def unpack(base: str, folder: Path) -> None:
    """The package as it was at a revision, and the benchmarks as they are now."""
    commit = subprocess.run(["git", "rev-parse", base], cwd=ROOT, capture_output=True, text=True, check=False)
    if commit.returncode != 0:
        sys.exit(f"{base!r} is no revision of this repository")
    archive = subprocess.run(["git", "archive", commit.stdout.strip(), "ropewalk"], cwd=ROOT, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)


def main(
    base: str = "HEAD",
    lengths: str = "8k",
    shapes: str = ",".join(SHAPES),
    methods: str = "dpe",
    rounds: int = 7,
    threads: int = 1,
    dtype: str = "bfloat16",
    backend: str = "auto",
    kind: str = "prefill",
    serve_case: str = typer.Option("", "--serve", hidden=True),
) -> None:
    """Print, per case, the time of this tree divided by that of the revision: median of interleaved rounds."""
    torch.set_num_threads(threads)
    if serve_case:
        asked = json.loads(serve_case)
        serve(asked[0], asked[1], asked[2], int(asked[3]), asked[4], asked[5])
        return
    if kind not in KINDS:
        sys.exit(f"unknown kind {kind!r}; give one of {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory() as folder:
        unpack(base, Path(folder))
        for shape in shapes.split(","):
            for length in (parse_length(text) for text in lengths.split(",")):
                for method in methods.split(","):
                    request = [kind, method, shape, str(length), backend, dtype]
                    ours, theirs = Side(ROOT, request, threads), Side(Path(folder), request, threads)
                    for side in (ours, theirs):
                        side.time()
                    ratios = sorted(ours.time() / theirs.time() for _ in range(rounds))
                    ours.close()
                    theirs.close()
                    row = {
                        "case": f"{kind}/{method}",
                        "shape": shape,
                        "length": format_length(length),
                        "base": base,
                        "ratio": round(statistics.median(ratios), 3),
                        "p20": round(ratios[int(0.2 * (rounds - 1))], 3),
                        "p80": round(ratios[int(0.8 * (rounds - 1) + 0.5)], 3),
                        "backend": ours.backend,
                        "base_backend": theirs.backend,
                        "rounds": rounds,
                    }
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    typer.run(main)
