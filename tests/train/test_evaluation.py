"""Evaluation during a run: the numbers of the model as inference has it, and no trace in the weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import ropewalk
from ropewalk.errors import MethodError, TrainingError
from ropewalk.evaluate import corpus
from ropewalk.evaluate.tasks.facts import KINDS
from ropewalk.methods import parse
from ropewalk.train.attached import attach
from ropewalk.train.evaluation import Evaluation
from ropewalk.train.run import train
from ropewalk.train.samplers import E2LLM, Contiguous, PoSE
from tests.architectures import PRETRAINED_LENGTH, VOCABULARY, build
from tests.train.test_run import METHOD, SAMPLER, SETTINGS, documents, weights
from tests.train.words import words

HELD = [np.random.default_rng(one).integers(3, VOCABULARY, 200) for one in range(3)]
PI = parse("pi:factor=4")
E2 = E2LLM(pretrained_length=PRETRAINED_LENGTH, max_scale=4)


def mean_loss(model, ids) -> float:
    """By transformers' own forward."""
    tokens = torch.tensor(ids)[None]
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    return float(functional.cross_entropy(logits, tokens[0, 1:]))


@pytest.mark.parametrize(
    ("method", "sampler", "after"),
    [
        (METHOD, SAMPLER, None),
        (parse("dynamic-ntk"), Contiguous(), "dynamic-ntk"),
        (parse("pi:factor=4"), PoSE(target_length=256), "pi:factor=4"),
        (parse("none"), E2, "pi:"),
    ],
    ids=["clex", "by length", "pi", "e2-llm"],
)
@pytest.mark.parametrize("length", [40, 130])
def test_loss_is_that_of_the_method_at_inference(method, sampler, after, length) -> None:
    model = build("llama")
    settings = replace(SETTINGS, method=str(method))
    evaluation = Evaluation(lengths=[length], documents=[*HELD, np.arange(3, 9)], samples=2)
    with attach(model, method, sampler, settings, None) as attached:
        if after is None:
            torch.nn.init.normal_(attached.network.down, std=0.01)
            after = attached.network.method()
        elif after == "pi:":
            after = f"pi:factor={-(-length // PRETRAINED_LENGTH)}"
        found = evaluation.measure(attached)
    with ropewalk.extend(model, after, target_length=length if after != "pi:factor=4" else 256):
        wanted = np.mean([mean_loss(model, one[:length]) for one in HELD[:2]])
    assert found == {f"loss@{length}": pytest.approx(wanted, abs=1e-4)}


def test_evaluation_leaves_the_run_as_it_is_and_stands_in_its_log(tmp_path) -> None:
    evaluation = Evaluation(lengths=[30, 130], every=4, documents=HELD)
    told: list[str] = []
    train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "a", evaluation=evaluation,
          tell=told.append, board=True)  # fmt: skip
    train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "b")
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss@130" in line] == [4, 6]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]
    assert all(1 <= line["t_mean"] <= line["t_max"] <= 4 for line in losses)
    assert any("step 4/6  loss@30" in one for one in told) and any("t_mean" in one for one in told)
    assert any((tmp_path / "a" / "tensorboard").iterdir())


def test_needles_are_asked_of_the_trained_model(tmp_path) -> None:
    facts = " ".join(f"{kind.prefix} {' '.join(kind.candidates)} ." for kind in KINDS)
    tokenizer = words(" ".join(dict.fromkeys((facts + " " + corpus.load("sotu")[:20_000]).split())))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=512)
    ).eval()  # fmt: skip
    evaluation = Evaluation(lengths=[600], needles=1, tokenizer=tokenizer)
    with attach(
        model, parse("pi:factor=2"), PoSE(target_length=1024), replace(SETTINGS, method="pi"), None
    ) as attached:
        assert evaluation.measure(attached) == {"needle@600": 0.0}  # a random model says nothing right


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [], "documents": HELD}, "lengths of two tokens"),
        ({"lengths": [30]}, "nothing to evaluate on"),
        ({"lengths": [30], "needles": 1}, "without a tokenizer"),
        ({"lengths": [300], "documents": HELD}, "no held-out document has 300 tokens"),
    ],
)
def test_evaluation_that_cannot_be_is_refused(given, message) -> None:
    with pytest.raises(TrainingError, match=message):
        Evaluation(**given)


def test_length_beyond_the_method_is_refused_before_the_run_begins(tmp_path) -> None:
    evaluation = Evaluation(lengths=[300], documents=[np.tile(HELD[0], 2)])
    with pytest.raises(MethodError, match=r"reaches 256 tokens .*wanted 300"):
        train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "out", evaluation=evaluation)
    assert not (tmp_path / "out").exists()


def test_result_has_the_weights_of_the_last_evaluation(tmp_path) -> None:
    evaluation = Evaluation(lengths=[130], every=100, documents=HELD)
    result = train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "a", evaluation=evaluation)
    (line,) = [json.loads(one) for one in (tmp_path / "a" / "log.jsonl").read_text().splitlines() if "loss@130" in one]
    model = AutoModelForCausalLM.from_pretrained(result.folder)
    with ropewalk.extend(model, result.method, target_length=130):
        assert line["loss@130"] == pytest.approx(np.mean([mean_loss(model, one[:130]) for one in HELD]), abs=1e-4)
