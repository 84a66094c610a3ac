"""Rows for the tests of the store and of comparisons, and a sweep that writes them; loads no torch."""

import sys
from dataclasses import replace
from pathlib import Path

from ropewalk.evaluate.row import Key, Row
from ropewalk.evaluate.store import Store

KEY = Key(
    task="needle",
    protocol="needle-ten-kinds/1",
    template="",
    resolved="none",
    control="",
    plan_sha256="plan-none",
    length=4096,
    seed=0,
    document=0,
    model_sha256="model",
    tokenizer_sha256="tokenizer",
    corpus_sha256="corpus",
    dtype="float32",
    backend="model's own",
)


def sample(document=0, scores=None, *, method="none", prompt=None, versions=None, metric="retrieved", **key):
    """A row; its scores and its prompt follow from the document where they are not given."""
    key = {"resolved": f"{method}:window=512", "plan_sha256": f"plan-{method}"} | key
    return Row(
        key=replace(KEY, document=document, **key),
        method=method,
        model="tiny",
        corpus="sotu",
        target_length=4096,
        prompt_sha256=prompt or f"prompt-{key.get('seed', 0)}-{document}",
        metric=metric,
        scores=tuple(scores) if scores is not None else (1.0, document / 7, 0.1),
        n=3,
        reached=4000,
        seconds=1.5,
        prefill_seconds=1.0,
        cpu_seconds=1.2,
        peak_bytes=None,
        device="cpu",
        details={"answers": [{"text": 'a "quoted" word\n', "distance": document}] * 20},
        versions=versions or {"ropewalk": "0.1.0"},
    )


def sweep(path, documents):
    """Measure and store what is not there yet, and say so line by line."""
    with Store(path) as store:
        for document in range(documents):
            row = sample(document)
            if store.claim(row.key):
                store.append(row)
                print(document, flush=True)


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), int(sys.argv[2]))
