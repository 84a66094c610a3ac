"""Self-Extend against llama.cpp's group attention, end to end, where llama-cpp-python is installed (`make llama-cpp`).

    python -m benchmarks.llama_cpp --length 16k --rounds 5
    python -m benchmarks.llama_cpp --length 16k --weights q4_1

Group attention is no option of llama.cpp's library: its programs move positions in the cache between batches
(`--grp-attn-n`, `--grp-attn-w`), and so does `LlamaCpp`. That is Self-Extend with another window for every query, see
`GroupAttention`. The logits of llama.cpp are compared with ours under that very plan, at a short and at the timed
length, before anything is timed; what is timed of ours is Self-Extend with the same group and window. Both read the
same text in one process, in turns; a ratio below 1 says that ours is faster.
"""

import json
import os
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp
import numpy as np
import torch
import typer
from llama_cpp import (
    GGML_TYPE_F16,
    GGML_TYPE_F32,
    LLAMA_FTYPE_ALL_F32,
    LLAMA_FTYPE_MOSTLY_BF16,
    LLAMA_FTYPE_MOSTLY_F16,
)
from torch import Tensor

from benchmarks.model import MODEL, TOLERANCE, attached, read
from benchmarks.run import RESULTS, settings
from ropewalk.evaluate import corpus
from ropewalk.grid import Grid
from ropewalk.lengths import parse_length
from ropewalk.methods.base import PositionMethod
from ropewalk.models.loading import load_model
from ropewalk.models.source import gguf_file
from ropewalk.plan import Band, PositionMap, Region
from ropewalk.rotary import RotarySpec

CHECKED = 256  # last tokens whose logits are compared
WEIGHTS = {"bf16": LLAMA_FTYPE_MOSTLY_BF16, "f16": LLAMA_FTYPE_MOSTLY_F16, "f32": LLAMA_FTYPE_ALL_F32}
PACKAGED = "q4_1"  # the file as it is; ours are its weights, dequantised and rounded to the dtype


@dataclass(frozen=True, kw_only=True)
class GroupAttention(PositionMethod):
    """What llama.cpp computes when `window` tokens are read at a time, or one: Self-Extend by whole windows.

    A query sees the tokens of its own window at their distance, and every earlier window in groups:
    p = m - n where d = floor(m / w) - floor(n / w) is 0, else m mod w + d w / G - floor((n mod w) / G), w a multiple of
    G. It is the p of Self-Extend with a window of m mod w tokens: none behind an edge, w - 1 before the next one.
    """

    name = "group-attention"

    group: int
    window: int
    length: int

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        group, window = self.group, self.window
        grouped = PositionMap(Grid(group), floor=True, modulus=window)
        bands = [Band(Region(0, 1, window))]
        for d in range(1, -(-self.length // window)):
            query = PositionMap(offset=Grid(d * window // group), modulus=window)
            bands.append(Band(Region(d, d + 1, window), query, grouped))
        return tuple(bands)


class LlamaCpp:
    """A GGUF and its cache in llama.cpp, called like a transformers model: one text, whose cache is the engine's own.

    Args:
        length: tokens that the cache has room for.
        flash: llama.cpp's flash attention, or None for its own choice.

    Attributes:
        shipped: divide positions as llama.cpp's programs do, by `llama_memory_seq_div`. In this version that turns keys
            the wrong way (`pos_div` of llama-kv-cells.h notes old - new where `pos_add` notes new - old), and answers
            are wrong. Else every token is brought to the same position by `llama_memory_seq_add`.
    """

    shipped = False

    def __init__(self, file: Path, *, length: int, group: int, window: int, threads: int, flash: bool | None) -> None:
        self.group, self.window = group, window
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(file), llama_cpp.llama_model_default_params())
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_batch = length, window
        options.n_threads = options.n_threads_batch = threads
        options.type_k = options.type_v = GGML_TYPE_F32 if file.stem == "f32" else GGML_TYPE_F16
        options.flash_attn_type = -1 if flash is None else int(flash)
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if self._context is None:
            sys.exit(f"llama.cpp made no context of {length} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(window, 0, 1)
        for i in range(window):
            self._batch.n_seq_id[i], self._batch.seq_id[i][0] = 1, 0

    def __call__(
        self, input_ids: Tensor, past_key_values: "LlamaCpp | None" = None, logits_to_keep: int = 1, **_: Any
    ) -> SimpleNamespace:
        """Logits [1, kept, vocabulary] of the last tokens of `input_ids` [1, T]."""
        if past_key_values is None:
            llama_cpp.llama_memory_clear(self._memory, False)
            self._position = self._grouped = 0
        ids = input_ids[0].to(torch.int32)
        wanted = torch.arange(len(ids)) >= len(ids) - logits_to_keep
        parts = zip(ids.split(self.window), wanted.split(self.window), strict=True)
        logits = [self._decode(part.numpy(), kept.numpy()) for part, kept in parts]
        return SimpleNamespace(logits=torch.cat(logits)[None], past_key_values=self)

    def _decode(self, ids: np.ndarray, wanted: np.ndarray) -> Tensor:
        """Read one batch behind what was read; logits of the wanted tokens."""
        self._move()
        self._batch.n_tokens = count = len(ids)
        self._position += count
        positions = np.arange(self._position - count, self._position)
        for field, values in ((self._batch.token, ids), (self._batch.pos, positions), (self._batch.logits, wanted)):
            np.ctypeslib.as_array(field, (count,))[:] = values
        if llama_cpp.llama_decode(self._context, self._batch) != 0:
            sys.exit(f"llama.cpp could not read {count} tokens at position {positions[0]}")
        if not wanted.any():
            return torch.empty(0, self._vocabulary)
        found = llama_cpp.llama_get_logits(self._context)  # waits
        return torch.tensor(np.ctypeslib.as_array(found, (int(wanted.sum()), self._vocabulary)))

    def _move(self) -> None:
        """Before a token behind a full window: bring that window to the positions of its groups."""
        first, edge, share = self._grouped, self._grouped + self.window, self.window // self.group
        if self._position < edge:
            return
        assert self._position == edge, "batches end where windows do"
        if self.shipped:  # back to their place in the text, then divided
            ahead = first // share * (self.window - share)
            llama_cpp.llama_memory_seq_add(self._memory, 0, first, edge, ahead)
            llama_cpp.llama_memory_seq_div(self._memory, 0, first + ahead, edge + ahead, self.group)
        else:
            for i in range(1, self.window):
                llama_cpp.llama_memory_seq_add(self._memory, 0, first + i, first + i + 1, i // self.group - i)
        self._position = self._grouped = first + share


def converted(weights: str, folder: str) -> Path:
    """The model's GGUF with its weights in another type, by llama.cpp's own conversion."""
    source = gguf_file(MODEL)
    assert source is not None
    if weights == PACKAGED:
        return source
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize = WEIGHTS[weights], True
    file = Path(folder) / f"{weights}.gguf"
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(file), options) != 0:
        sys.exit(f"llama.cpp could not convert {source.name} to {weights}")
    return file


def apart(left: Tensor, right: Tensor) -> dict[str, float]:
    """How far logits [1, T, vocabulary] are apart, and how often both have the same likeliest token."""
    left, right = left.double(), right.double()
    return {
        "relative": round(float((left - right).norm() / right.norm()), 5),
        "same_top": round(float((left.argmax(-1) == right.argmax(-1)).double().mean()), 3),
    }


def loss(logits: Tensor, ids: Tensor) -> float:
    """Nats per token of the text that follows each of the last tokens of `ids` but the last."""
    wanted = ids[0, -logits.shape[1] + 1 :]
    return round(float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), wanted)), 4)


@torch.inference_mode()
def check(model: Any, engine: LlamaCpp, method: str, ids: Tensor) -> dict[str, Any]:
    """Logits of llama.cpp against ours under its plan, and under Self-Extend, of the last tokens of `ids` [1, T]."""
    length = ids.shape[1]
    plan = GroupAttention(group=engine.group, window=engine.window, length=length)
    sides: dict[str, Any] = {"group-attention": plan, "self-extend": method}
    theirs = engine(ids, logits_to_keep=CHECKED).logits
    losses = {"llama.cpp": loss(theirs, ids)}
    found: dict[str, Any] = {"tokens": length, "loss": losses}
    for name, ours in sides.items():
        with attached(model, ours, length):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=CHECKED).logits
        found[name] = apart(logits, theirs)
        losses[name] = loss(logits, ids)
    return found


def shipped_loss(engine: LlamaCpp, ids: Tensor) -> float:
    """Of the last tokens of `ids`, read as llama.cpp's programs would."""
    engine.shipped = True
    found = loss(engine(ids, logits_to_keep=CHECKED).logits, ids)
    engine.shipped = False
    return found


def main(
    length: str = "16k",
    group: int = 4,
    window: int = 1024,
    rounds: int = 5,
    steps: int = 16,
    threads: int = 1,
    weights: str = "bf16",
    dtype: str = "bfloat16",
    flash: bool | None = None,
    core: int = -1,
    note: str = "",
    output: Path = RESULTS / "llama_cpp.jsonl",
) -> None:
    """Time ours against llama.cpp, and append a row for prefill and one for decoding to results/llama_cpp.jsonl.

    Weights of llama.cpp: bf16, f16, f32, or q4_1, the model's file as it is.
    """
    if weights not in (*WEIGHTS, PACKAGED):
        sys.exit(f"unknown weights {weights!r}; give one of {', '.join((*WEIGHTS, PACKAGED))}")
    if window % group:
        sys.exit(f"llama.cpp wants a window that is a multiple of the group; got {window} and {group}")
    if core >= 0:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(threads)
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    tokens = parse_length(length)
    model, tokenizer = load_model(MODEL, dtype=getattr(torch, dtype))
    text = corpus.load(corpus.DEFAULT)[: 8 * tokens]
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids[:, :tokens]
    method = f"self-extend:group={group},window={window}"
    with tempfile.TemporaryDirectory() as folder:
        file = converted(weights, folder)
        room = tokens + 256
        engine = LlamaCpp(file, length=room, group=group, window=window, threads=threads, flash=flash)
        short = min(tokens, 5 * window // 2)
        checks = [check(model, engine, method, ids[:, :n]) for n in sorted({short, tokens})]
        checks[0]["loss"]["llama.cpp as shipped"] = shipped_loss(engine, ids[:, :short])
        print(json.dumps(checks), file=sys.stderr)
        differs = max(found["group-attention"]["relative"] for found in checks)
        if differs > TOLERANCE or any(c["group-attention"]["relative"] > c["self-extend"]["relative"] for c in checks):
            sys.exit(f"llama.cpp's logits differ from ours under its own plan by {differs:.3g}; not timed")
        with attached(model, method, tokens + 64) as extension:
            pairs = []
            for _ in range(rounds):
                pairs.append((read(engine, ids, steps), read(model, ids, steps)))
                print(json.dumps(pairs[-1]), file=sys.stderr)
            backend = extension.backend
    config = model.config
    common = {
        "method": method,
        "model": MODEL,
        "shape": f"{config.num_attention_heads}/{config.num_key_value_heads}x{config.head_dim}",
        "length": tokens,
        "against": f"llama.cpp's group attention, weights in {weights}",
        "llama_cpp": llama_cpp.__version__,
        "llama_cpp_built_for": " ".join(re.findall(r"(\w+) = 1", llama_cpp.llama_print_system_info().decode())),
        "flash": "auto" if flash is None else flash,
        "backend": backend,
        "max_difference": differs,
        "checks": checks,
        "rounds": rounds,
        "steps": steps,
    }
    common |= settings(dtype, "cpu") | ({"note": note} if note else {})
    with output.open("a") as rows:
        for what in ("prefill", "decode"):
            row = {"case": f"llama.cpp/{what}/{weights}"} | ratios(pairs, what) | common
            rows.write(json.dumps(row) + "\n")
            print(json.dumps(row))


def ratios(pairs: list[tuple[dict[str, float], dict[str, float]]], what: str) -> dict[str, float]:
    """Of rounds (llama.cpp, ours)."""
    found = sorted(ours[what] / theirs[what] for theirs, ours in pairs)
    low, high = found[int(0.2 * (len(found) - 1))], found[int(0.8 * (len(found) - 1) + 0.5)]
    return {
        "ratio": round(statistics.median(found), 3),
        "p20": round(low, 3),
        "p80": round(high, 3),
        "cpu_ratio": round(statistics.median(ours[f"{what}_cpu"] / base[f"{what}_cpu"] for base, ours in pairs), 3),
        "baseline_ms": round(1e3 * statistics.median(theirs[what] for theirs, _ in pairs), 1),
        "run_ms": round(1e3 * statistics.median(ours[what] for _, ours in pairs), 1),
    }


if __name__ == "__main__":
    typer.run(main)
