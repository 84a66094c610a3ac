"""A prefill that is divided over processes gives the logits of the undivided model; what cannot be divided is told."""

import json
import multiprocessing

import pytest
import safetensors.torch
import torch

from tests.models.ranks import CASES, MIXING, RANKS, SMALL, STEPS, batch, extended, name_of, work

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
