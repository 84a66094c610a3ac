"""A training run: it learns, it goes on to the same weights, and it stops at the first bad number."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import ropewalk
from ropewalk.errors import MethodError, TrainingError
from ropewalk.methods import CLEX, parse
from ropewalk.train.learned import Learned
from ropewalk.train.run import _checkpointing, train
from ropewalk.train.samplers import E2LLM, Clex, PoSE, RandPos
from ropewalk.train.settings import Settings
from ropewalk.train.trainer import Clip, last_checkpoint
from tests.architectures import PRETRAINED_LENGTH, VOCABULARY, build
from tests.models.batches import texts, whole

METHOD = CLEX(max_factor=4, gate=math.inf)
SAMPLER = Clex(pretrained_length=PRETRAINED_LENGTH, max_factor=4)
SETTINGS = Settings(
    method=str(METHOD), positions=str(SAMPLER), length=24, target_length=256, steps=6, batch=2, rate=1e-3,
    network_rate=1e-4, warmup=1, save_every=2, log_every=1,
)  # fmt: skip


def documents() -> list[np.ndarray]:
    """Texts that repeat every five tokens, so that there is something to learn."""
    generator = np.random.default_rng(0)
    return [np.tile(generator.integers(3, VOCABULARY, 5), 30) for _ in range(4)]


class Stop(TrainerCallback):
    """Breaks a run off after a step, in some way."""

    def __init__(self, step: int, how) -> None:
        self.step = step
        self.how = how

    def on_step_end(self, args, state, control, model=None, **named) -> None:
        if state.global_step == self.step:
            self.how(model)


def interrupt(model) -> None:
    raise KeyboardInterrupt


def poison(model) -> None:
    with torch.no_grad():
        next(model.parameters())[:] = math.nan


def weights(folder) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_interrupted_run_goes_on_to_the_weights_of_an_unbroken_one(tmp_path) -> None:
    unbroken = train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        broken = [Stop(5, interrupt)]
        train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "b", callbacks=broken)
    resumed = train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "b", resume=True)
    assert resumed.losses == unbroken.losses and len(resumed.losses) == 6
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    spec = Learned(build("llama"), METHOD).spec
    tables = [parse(run.method).plan(spec, 200).table for run in (unbroken, resumed)]
    assert tables[0] == tables[1] != METHOD.plan(spec, 200).table


def test_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path) -> None:
    """A process killed in the middle leaves no state, or half of it."""
    train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        broken = [Stop(5, interrupt)]
        train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "b", callbacks=broken)
    places = tmp_path / "b" / "checkpoints"
    assert last_checkpoint(places) == str(places / "checkpoint-4")
    state = places / "checkpoint-4" / "trainer_state.json"
    state.write_text(state.read_text()[:50])
    shutil.copytree(places / "checkpoint-4", places / "checkpoint-10")
    (places / "checkpoint-10" / "trainer_state.json").unlink()
    assert last_checkpoint(places) == str(places / "checkpoint-2")
    train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "b", resume=True)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accumulated_batches_are_one_batch(tmp_path) -> None:
    """PoSE's rows have different numbers of labels."""
    pose, found = PoSE(target_length=256), []
    for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
        folder = tmp_path / str(accumulate)
        settings = replace(SETTINGS, method="pi", positions=str(pose), batch=batch, accumulate=accumulate, steps=3)
        train(build("llama"), parse("pi"), pose, documents(), settings, folder)
        found.append(weights(folder))
    for other in found[1:]:
        for name, one in found[0].items():
            torch.testing.assert_close(other[name], one, rtol=0, atol=1e-5)


def test_result_is_extended_from_its_folder(tmp_path) -> None:
    model = build("llama")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    result = train(model, METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "out")
    assert all(one.requires_grad for one in model.parameters())
    assert set(model.state_dict()) == set(before) == set(weights(tmp_path / "out"))
    assert any(not torch.equal(one, before[name]) for name, one in model.state_dict().items())
    (ids,) = texts(200)
    loaded = AutoModelForCausalLM.from_pretrained(result.folder, attn_implementation="eager")
    with ropewalk.extend(loaded, result.method, target_length=256), ropewalk.extend(model, result.method) as ours:
        assert ours.target_length == 256
        torch.testing.assert_close(whole(loaded, ids), whole(model, ids), rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["length"] == 24


def test_network_alone_leaves_the_model_as_it_is(tmp_path) -> None:
    model = build("llama")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    settings = replace(SETTINGS, network_only=True, steps=2)
    result = train(model, METHOD, SAMPLER, documents(), settings, tmp_path / "out")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    spec = Learned(model, METHOD).spec
    assert parse(result.method).plan(spec, 200).table != METHOD.plan(spec, 200).table
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("method", "sampler"),
    [("pi", PoSE(target_length=256)), ("none", E2LLM(pretrained_length=PRETRAINED_LENGTH, max_scale=4))],
    ids=["pose over pi", "e2-llm"],
)
def test_run_with_a_fixed_table_learns(tmp_path, method, sampler) -> None:
    settings = replace(SETTINGS, method=method, positions=str(sampler), steps=12, rate=3e-3, checkpointing=True)
    result = train(build("llama"), parse(method), sampler, documents(), settings, tmp_path / "out")
    losses = list(result.losses.values())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert result.method == "pi:factor=4"


def test_loss_that_is_not_finite_stops_the_run_with_the_last_good_checkpoint(tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"step 3: .*loss is nan; the last good checkpoint: .*checkpoint-2; lower"):
        train(build("llama"), parse("pi"), PoSE(target_length=256), documents(),
              replace(SETTINGS, method="pi"), tmp_path / "out", callbacks=[Stop(3, poison)])  # fmt: skip


def test_gradient_that_is_not_finite_stops_the_run_before_it_reaches_a_checkpoint(tmp_path) -> None:
    model = build("llama")

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, **named) -> None:
            if state.global_step == 3:
                model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)

    settings = replace(SETTINGS, method="pi", save_every=1)
    with pytest.raises(
        TrainingError, match=r"step 3: the norm of the gradient is (nan|inf); .*: .*checkpoint-3; lower"
    ):
        train(model, parse("pi"), PoSE(target_length=256), documents(), settings, tmp_path / "out",
              callbacks=[Poison()])  # fmt: skip
    assert all(one.isfinite().all() for one in weights(tmp_path / "out" / "checkpoints" / "checkpoint-3").values())


@pytest.mark.parametrize("kind", ["projection", "residual"])
def test_table_that_runs_away_stops_the_run_with_step_pair_and_time(tmp_path, kind) -> None:
    method = replace(METHOD, network=kind)
    settings = replace(SETTINGS, method=str(method), network_rate=10.0)
    wrong = r"step [1-5]: the frequency of pair \d+ at t = [\d.]+ is (not finite|faster than the pair before it); lower"
    with pytest.raises(TrainingError, match=wrong):
        train(build("llama"), method, SAMPLER, documents(), settings, tmp_path / "out")


def test_network_and_model_are_clipped_apart() -> None:
    """The network's gradient, however large, does not shrink that of the model."""
    model, network = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    model.grad, network.grad = torch.full((4,), 0.1), torch.full((4,), 1e5)
    optimizer = torch.optim.AdamW([{"params": [model]}, {"params": [network]}])
    Clip(1.0).on_pre_optimizer_step(TrainingArguments(), TrainerState(), TrainerControl(), optimizer=optimizer)
    assert (model.grad == 0.1).all()
    torch.testing.assert_close(network.grad, torch.full((4,), 0.5))


def test_clip_is_part_of_a_run(tmp_path) -> None:
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, *state, optimizer, **named) -> None:
            seen.extend(float(torch.stack([p.grad.norm() for p in g["params"]]).norm()) for g in optimizer.param_groups)

    settings = replace(SETTINGS, steps=2, clip=1e-3)
    train(build("llama"), METHOD, SAMPLER, documents(), settings, tmp_path / "out", callbacks=[Watch()])
    assert len(seen) == 4 and all(norm == pytest.approx(1e-3, rel=0.01) for norm in seen[::2])
    assert max(seen) <= 1.001e-3


def test_run_that_cannot_be_is_refused(tmp_path) -> None:
    model, sampler, folder = build("llama"), PoSE(target_length=256), tmp_path / "out"
    with pytest.raises(TrainingError, match="no network to train alone"):
        train(model, parse("pi"), sampler, documents(), replace(SETTINGS, network_only=True), folder)
    with pytest.raises(TrainingError, match="no run to go on with"):
        train(model, METHOD, SAMPLER, documents(), SETTINGS, folder, resume=True)
    train(model, parse("pi"), sampler, documents(), replace(SETTINGS, method="pi", steps=1), folder)
    with pytest.raises(TrainingError, match=r"a run in .* already"):
        train(model, parse("pi"), sampler, documents(), replace(SETTINGS, method="pi", steps=1), folder)
    (folder / "checkpoints").mkdir(exist_ok=True)
    with pytest.raises(TrainingError, match=r"has method = 'pi', this one 'clex:"):
        train(model, METHOD, SAMPLER, documents(), SETTINGS, folder, resume=True)
    with pytest.raises(TrainingError, match="has data_sha256 = "):
        train(
            model, parse("pi"), sampler, documents()[:3], replace(SETTINGS, method="pi", steps=1), folder, resume=True
        )
    with pytest.raises(TrainingError, match="a sequence of 24 tokens does not fit into 20 positions"):
        train(model, parse("pi"), PoSE(target_length=20), documents(), replace(SETTINGS, method="pi"), tmp_path / "c")
    with pytest.raises(TrainingError, match="self-extend counts whole positions"):
        train(model, parse("self-extend"), E2LLM(pretrained_length=PRETRAINED_LENGTH, max_scale=4), documents(),
              replace(SETTINGS, method="self-extend"), tmp_path / "other")  # fmt: skip


@pytest.mark.parametrize(
    ("method", "sampler"),
    [
        ("pi:factor=4", PoSE(target_length=24)),
        ("pi:factor=4", RandPos(target_length=24)),
        ("none", E2LLM(pretrained_length=PRETRAINED_LENGTH, max_scale=1)),
        (str(METHOD), Clex(pretrained_length=PRETRAINED_LENGTH, max_factor=1)),
    ],
    ids=["pose", "randpos", "e2-llm", "clex"],
)
def test_run_that_would_see_nothing_long_is_refused(tmp_path, method, sampler) -> None:
    with pytest.raises(TrainingError, match=r"sequences of 24 tokens would see no position of a longer text"):
        train(build("llama"), parse(method), sampler, documents(), SETTINGS, tmp_path / "out")


def test_process_with_several_gpus_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(TrainingError, match=r"sees 2 GPUs; start one for each \(torchrun --nproc-per-node 2"):
        train(build("llama"), METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        (METHOD, 300, r"reaches 256 tokens .*wanted 300; give a larger max_factor"),
        (replace(METHOD, log_n=True), 256, "clex: log_n, .* are for inference"),
    ],
    ids=["target beyond T", "query scale"],
)
def test_clex_that_could_not_be_read_afterwards_is_refused_before_it_is_trained(
    tmp_path, method, target, message
) -> None:
    with pytest.raises(MethodError, match=message):
        train(build("llama"), method, SAMPLER, documents(), replace(SETTINGS, target_length=target), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_checkpointing_that_was_switched_on_elsewhere_is_refused(tmp_path) -> None:
    model = build("llama")
    _checkpointing(model, True)
    with pytest.raises(TrainingError, match=r"gradient checkpointing is on, .*set checkpointing in the settings"):
        train(model, METHOD, SAMPLER, documents(), SETTINGS, tmp_path / "out")
    _checkpointing(model, False)
    train(model, METHOD, SAMPLER, documents(), replace(SETTINGS, steps=1, checkpointing=True), tmp_path / "out")


@pytest.mark.parametrize("field", ["steps", "batch", "length", "rate", "clip", "save_every"])
def test_settings_out_of_range_are_refused_by_name(field) -> None:
    with pytest.raises(TrainingError, match=f"{field} must be"):
        replace(SETTINGS, **{field: 0})
