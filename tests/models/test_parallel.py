"""A prefill that is divided over processes gives the logits of the undivided model; what cannot be divided is told."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tokenizers.pre_tokenizers import Whitespace

import ropewalk
from ropewalk.models.loading import load_model
from ropewalk.models.split import Split
from tests.architectures import VOCABULARY, build
from tests.models.ranks import CASES, MIXING, RANKS, SMALL, STEPS, TARGET, batch, extended, name_of, work
from tests.models.saved import save_base, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2]

TOLERANCE = 1e-5  # float32, of logits of size 1 to 10


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What four gloo processes got: the tensors of each, and what each was told."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("forkserver")  # torch is imported once, by a process without threads
    context.set_forkserver_preload(["tests.models.ranks"])
    processes = [context.Process(target=work, args=(rank, folder)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * RANKS
    found = [safetensors.torch.load_file(folder / f"{rank}.safetensors") for rank in range(RANKS)]
    return found, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize(
    ("family", "method", "count"),
    [(*case, RANKS) for case in CASES] + [(*case, 2) for case in SMALL],
    ids=lambda value: str(value)[:30],
)
def test_divided_prefill_equals_the_undivided_one(ranks, family, method, count) -> None:
    tokens, mask = batch()
    model, extension = extended(family, method)
    with extension, torch.no_grad():
        whole = model(tokens, attention_mask=mask, use_cache=False).logits
    seen = mask.bool()
    for found in ranks[0][:count]:
        logits = found[name_of(family, method, count)]
        torch.testing.assert_close(logits[seen], whole[seen], atol=TOLERANCE * float(whole.abs().max()), rtol=0)


def test_gathered_cache_is_decoded_like_one_of_an_undivided_prefill(ranks) -> None:
    tokens, _ = batch()
    model, extension = extended("llama", "dpe")
    with extension, torch.no_grad():
        whole = model(tokens).logits[:, -STEPS - 1 :]
    for found in ranks[0]:
        torch.testing.assert_close(found["decoded"], whole, atol=TOLERANCE * float(whole.abs().max()), rtol=0)


REASONS = {
    **{family: f"{family} cannot be divided by tokens" for family in MIXING},
    "own attention": "extend with backend='blockwise'",
    "nothing prefilled": "call the model first",
    "different texts": "given different texts",
    "short": "7 tokens cannot be divided over 4 processes",
    "long": "a row grew to 257 tokens",
    "labels": "does not take labels",
    "holes": "holes between visible tokens",
    "documents": "positions that grow by one",
    "four dimensions": "2-D mask of padding",
    "divided twice": "divided already",
    "a second part": "go on with gather_cache",
    "other tokens": "5 tokens cannot be gathered",
    "gradients": "no gradients",
    "window": "prefill with past_key_values=DynamicCache()",
    "removed": "not attached",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_divided_is_refused_in_every_process(ranks, name) -> None:
    for told in ranks[1]:
        assert REASONS[name] in told.get(name, "nothing was refused")


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [16, 201, 1000])
def test_split_has_every_token_once_and_every_process_as_many_keys(ranks, length) -> None:
    splits = [Split(length, rank, ranks) for rank in range(ranks)]
    assert sorted(torch.cat([split.own for split in splits]).tolist()) == list(range(length))
    pairs = [int((split.own + 1).sum()) for split in splits]
    assert max(pairs) - min(pairs) <= 2 * length  # chunks differ by one token, which sees `length` keys at most
    assert length - 1 in splits[Split.last_rank].own


SCRIPTS = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "docs" / "parallel.md").read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "script"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_script_of_the_page_answers_like_one_process(tmp_path, name, script) -> None:
    base = save_base(tmp_path / "base", "llama")
    build("llama", vocab_size=VOCABULARY + 1).save_pretrained(base)  # transformers 5.19 divides the head evenly
    written = tiny_tokenizer()
    written.backend_tokenizer.pre_tokenizer = Whitespace()
    written.save_pretrained(base)
    words = ("a b b a b " * 30).split()
    (tmp_path / "prompt.txt").write_text(" ".join(words))
    script, count = re.subn(r'"HuggingFaceTB/[^"]*"', repr(str(base)), script)
    assert count == 1
    (tmp_path / name).write_text(script.replace("32768", str(TARGET)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", name]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, tokenizer = load_model(str(base))
    tokens = tokenizer(" ".join(words), return_tensors="pt")["input_ids"]
    assert tokens.shape[1] == len(words)
    with ropewalk.extend(model, "dpe", target_length=TARGET):
        answer = model.generate(tokens, max_new_tokens=33 if "prefill" in name else 32, do_sample=False)
    assert done.stdout.strip() == tokenizer.decode(answer[0, tokens.shape[1] :])
