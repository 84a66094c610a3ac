"""An extended model that transformers split over processes or devices gives the result of the undivided one."""

import multiprocessing
from types import SimpleNamespace

import accelerate
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk.errors import ModelError
from ropewalk.models.heads import WHOLE, own_heads, share_of
from ropewalk.models.huggingface import read_spec
from tests.architectures import WORKS
from tests.models.head_ranks import FAMILIES, METHODS, RANKS, build_even, extended_logits, method_of, work
from tests.models.saved import TARGET, logits, save_base, tokens

TOLERANCE = 1e-5  # float32, of the largest logit: sums over heads are made in two parts


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The logits that two gloo processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    specs = {}
    for family in FAMILIES:
        model = build_even(family)
        specs[family] = read_spec(model)
        model.save_pretrained(folder / family)
    context = multiprocessing.get_context("forkserver")  # torch is imported once, by a process without threads
    context.set_forkserver_preload(["tests.models.head_ranks"])
    processes = [context.Process(target=work, args=(rank, folder, specs)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * RANKS
    return [safetensors.torch.load_file(folder / f"{rank}.safetensors") for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stock", *METHODS])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensor_parallel_model_equals_the_undivided_one(ranks, family, name) -> None:
    model = build_even(family)
    whole = logits(model) if name == "stock" else extended_logits(model, name, read_spec(model))
    for found in ranks:
        torch.testing.assert_close(found[f"{family} {name}"], whole, atol=TOLERANCE * float(whole.abs().max()), rtol=0)


def test_heads_of_the_shares_are_the_heads_of_the_plan() -> None:
    spec = read_spec(WORKS["llama"]())
    plan = method_of("dpe by head", spec).resolve(spec, TARGET).plan(spec, TARGET)
    distance = plan.effective_distance(100, layer=1)
    parts = [own_heads(plan, (rank, 2)).effective_distance(100, layer=1) for rank in range(2)]
    assert [part.shape[0] for part in parts] == [spec.num_heads // 2] * 2
    assert torch.equal(torch.cat(parts), distance)
    assert own_heads(plan, WHOLE) is plan


def test_heads_that_are_not_split_evenly_are_refused() -> None:
    config = SimpleNamespace(model_type="odd", num_attention_heads=4)
    config.get_text_config = lambda: config
    with pytest.raises(ModelError, match="3 of its 4 query heads are on one of 2 processes"):
        share_of(SimpleNamespace(tp_size=2, config=config), 3)


def _on_disk(folder):
    return AutoModelForCausalLM.from_pretrained(folder, device_map={"": "disk"}, offload_folder=folder / "offloaded")


def _partly_on_disk(folder):
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    return AutoModelForCausalLM.from_pretrained(folder, device_map=places, offload_folder=folder / "offloaded")


def _offloaded(folder):
    return accelerate.cpu_offload(AutoModelForCausalLM.from_pretrained(folder), execution_device=torch.device("cpu"))


@pytest.mark.parametrize("load", [_on_disk, _partly_on_disk, _offloaded])
@pytest.mark.parametrize("method", ["dpe", "yarn", "dynamic-ntk"])
def test_model_whose_weights_lie_elsewhere_equals_the_model(tmp_path, load, method) -> None:
    place = save_base(tmp_path / "base", "llama")
    prompt = tokens(TARGET - 4)
    got = []
    for model in (load(place), AutoModelForCausalLM.from_pretrained(place)):
        with ropewalk.extend(model, method, target_length=TARGET):
            answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False)
            got.append((logits(model), answer))
    assert torch.equal(got[0][0], got[1][0])
    assert torch.equal(got[0][1], got[1][1])
