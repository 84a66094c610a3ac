"""What the processes of tests/models/test_parallel.py do: they share nothing with the test but the models' seed."""

import datetime
import json
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

import ropewalk
from ropewalk.errors import RopewalkError
from ropewalk.models.parallel import sequence_parallel
from tests.architectures import VOCABULARY, WORKS

RANKS = 4
LENGTH, TARGET = 201, 256  # the length divides by nothing
STEPS = 3  # decoded after the prefill

FACTORS = "/".join(["2", "3"] * 4)
METHODS = (
    "dpe",
    "self-extend",
    "rerope",
    "leaky-rerope",
    "string+yarn:factor=4",
    "dca",
    "rerope:log_n=true",
    "dpe+yarn:factor=2",
    "none",
    "pi",
    "yarn-paper",
    "dynamic-ntk",
    "clex",
    f"longrope:long={FACTORS},short={FACTORS}",
)
CASES = [("llama", method) for method in METHODS]
CASES += [(family, "self-extend") for family in ("gpt_neox", "gemma3_text", "deepseek_v3", "smollm3", "gpt_oss")]
CASES += [("gemma3_text", "yarn")]
SMALL = [("llama", "dpe"), ("llama", "dca"), ("gemma3_text", "self-extend")]  # also on two of the processes
MIXING = ("lfm2", "qwen3_next", "falcon_h1")  # layers besides attention that see other tokens


def batch() -> tuple[Tensor, Tensor]:
    """Tokens and mask [3, LENGTH]: a whole row, one padded on the left by more than a chunk, one on the right."""
    tokens = torch.randint(1, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[1, :60] = 0
    mask[2, -70:] = 0
    return tokens, mask


def extended(family: str, method: str) -> tuple[PreTrainedModel, ropewalk.Extension]:
    model = WORKS[family]()
    return model, ropewalk.extend(model, method, target_length=TARGET, backend="blockwise", verify=False)


def name_of(family: str, method: str, ranks: int) -> str:
    return f"{family} {method} on {ranks}"


def work(rank: int, folder: Path) -> None:
    """Run every case in one of the processes and write what it got."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    patience = datetime.timedelta(seconds=120)  # for a process that failed alone
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=RANKS, timeout=patience)
    pair = dist.new_group([0, 1])
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for family, method in CASES:
            found |= _prefill(family, method, None)
        for family, method in SMALL if rank < 2 else ():
            found |= _prefill(family, method, pair)
        found |= _decode()
        told = _refusals(rank)
    safetensors.torch.save_file(found, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def _prefill(family: str, method: str, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    tokens, mask = batch()
    model, extension = extended(family, method)
    name = name_of(family, method, dist.get_world_size(group))
    with sequence_parallel(extension, group, verify=method == "dpe") as parallel:
        part = model(tokens, attention_mask=mask, use_cache=False).logits
        assert part.shape[1] == len(parallel.split.own) < LENGTH
        return {name: parallel.gather(part)}


def _decode() -> dict[str, Tensor]:
    """The last token's logits of a prefill, then those of tokens that every process decodes from the whole cache."""
    tokens, _ = batch()
    model, extension = extended("llama", "dpe")
    tokens, new = tokens[:, :-STEPS], tokens[:, -STEPS:]
    cache = DynamicCache()
    with sequence_parallel(extension) as parallel:
        part = model(tokens, past_key_values=cache, logits_to_keep=1).logits
        rows = [parallel.last(part)]
        assert cache.get_seq_length() == len(parallel.split.own)
        cache = parallel.gather_cache(cache)
    for step in range(STEPS):
        rows.append(model(new[:, step : step + 1], past_key_values=cache).logits)
    return {"decoded": torch.cat(rows, 1)}


def _refusals(rank: int) -> dict[str, str]:
    """What is said in every process where something cannot be divided."""
    told: dict[str, str] = {}

    def note(name: str, attempt) -> None:
        try:
            attempt()
        except RopewalkError as error:
            told[name] = str(error)

    def enter(extension: ropewalk.Extension) -> None:
        with sequence_parallel(extension):
            pass

    for family in MIXING:
        note(family, partial(enter, extended(family, "dpe")[1]))
    model = WORKS["llama"]()
    with ropewalk.extend(model, "yarn", target_length=TARGET, verify=False) as own:
        note("own attention", lambda: enter(own))
    model, extension = extended("llama", "dpe")
    tokens, mask = batch()
    positions = torch.arange(LENGTH)[None]
    with sequence_parallel(extension, verify=False) as parallel:
        note("nothing prefilled", lambda: parallel.gather(tokens))
        note("different texts", lambda: model(tokens + (rank == 2)))
        note("short", lambda: model(tokens[:, :7]))
        note("labels", lambda: model(tokens, labels=tokens))
        note("holes", lambda: model(tokens, attention_mask=mask.index_fill(1, torch.tensor([100]), 0)))
        note("documents", lambda: model(tokens, position_ids=positions % 50))
        note("four dimensions", lambda: model(tokens, attention_mask=mask[:, None, None]))
        note("divided twice", lambda: enter(extension))
        cache = DynamicCache()
        model(tokens, past_key_values=cache)
        note("a second part", lambda: model(tokens, past_key_values=cache))
        note("other tokens", lambda: parallel.gather(tokens[:, :5]))
        with torch.enable_grad():
            note("gradients", lambda: model(tokens))
    limited, short = extended("llama", "dynamic-ntk")
    with sequence_parallel(short, verify=False):
        note("long", lambda: limited(torch.ones(1, TARGET + 1, dtype=torch.int64)))
    note("window", _gather_windows)
    extension.remove()
    note("removed", lambda: enter(extension))
    return told


def _gather_windows() -> None:
    """A prefill into a cache that keeps a window only."""
    model, extension = extended("gemma3_text", "dpe")
    cache = DynamicCache(config=model.config)
    with sequence_parallel(extension, verify=False) as parallel:
        model(batch()[0], past_key_values=cache)
        parallel.gather_cache(cache)
