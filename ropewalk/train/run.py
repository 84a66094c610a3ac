"""One training run on transformers' Trainer: a method, a position sampler, documents; resumable to the same weights."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, TrainerCallback

from ropewalk.errors import TrainingError
from ropewalk.methods import CLEX, Method, parse
from ropewalk.models.sidecar import save
from ropewalk.train.attached import Attached, attach
from ropewalk.train.collator import collate
from ropewalk.train.data import Sequences
from ropewalk.train.evaluation import Evaluate, Evaluation
from ropewalk.train.loop import Log, Loop, is_trained, tensorboard
from ropewalk.train.lora import adapted
from ropewalk.train.packs import Mixed, MixedSequences
from ropewalk.train.positions import Sampler
from ropewalk.train.settings import Settings
from ropewalk.train.trainer import Clip, arguments, begin, losses, require_accelerate

NETWORK = "clex.json"
EXTENSION = "extension"  # folder that `ropewalk.from_pretrained` loads
BOARD = "tensorboard"


@dataclass(frozen=True)
class Result:
    """What a run left.

    Attributes:
        folder: with the model (unless only the network was trained), the network, the settings and the log.
        method: what the result is extended with, in its text form.
        losses: mean loss since the line before, by step.
    """

    folder: Path
    method: str
    losses: dict[int, float]


def train(
    model: PreTrainedModel,
    method: Method,
    sampler: Sampler,
    documents: Sequence[np.ndarray],
    settings: Settings,
    folder: str | Path,
    *,
    resume: bool = False,
    padding: int = 0,
    pretrained_length: int | None = None,
    evaluation: Evaluation | None = None,
    board: bool = False,
    tell: Callable[[str], None] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Train a model under a method, and write the result into a folder.

    Args:
        model: its weights are changed, unless only the network is trained.
        method: `clex`, or any method that `ropewalk.extend` attaches.
        sampler: of positions.
        documents: token ids.
        settings: of the run; they are written into the folder.
        folder: where checkpoints and the result go.
        resume: go on after the last checkpoint in the folder, to the weights of a run that was not interrupted.
        padding: id of padded places.
        evaluation: what is measured while the run goes on.
        board: write the log for TensorBoard too, into the folder's `tensorboard`.
        tell: takes the lines of the log, for people.

    Raises:
        TrainingError: settings, data or a checkpoint that do not fit; a loss or a table that is not finite (named with
            the last good checkpoint).
        MethodError, ModelError: as `ropewalk.extend`.
    """
    folder = Path(folder)
    require_accelerate()
    _require(model, method, sampler, documents, settings)
    given = arguments(settings, folder)
    settings = replace(settings, data_sha256=_sha256(documents), processes=given.world_size)
    count = settings.count * given.world_size
    made = {"length": settings.length, "count": count, "seed": settings.seed}
    data = (
        MixedSequences(documents, sampler, **made)
        if isinstance(sampler, Mixed)
        else Sequences(documents, sampler, **made)
    )
    with attach(model, method, sampler, settings, pretrained_length) as attached:
        for length in evaluation.lengths if evaluation is not None else ():
            with attached.at(length):  # what cannot be evaluated is refused now
                pass
        checkpoint = begin(settings, folder, resume=resume)
        given.distributed_state.wait_for_everyone()  # Trainer makes the folder whose absence the others check
        asked = [(one, one.requires_grad) for one in model.parameters()]
        try:
            with adapted(model, settings) as lora:
                for name, one in model.named_parameters():
                    one.requires_grad_(is_trained(name, settings))
                trainer = Loop(
                    attached=attached,
                    settings=settings,
                    model=model,
                    args=given,
                    train_dataset=data,
                    data_collator=partial(collate, padding=padding),
                    callbacks=[Clip(settings.clip), Log(folder, tell), *callbacks],
                )
                if evaluation is not None:
                    trainer.add_callback(Evaluate(evaluation, attached, trainer.log))
                if board:
                    trainer.add_callback(tensorboard(folder / BOARD))
                model.train()
                if settings.checkpointing:
                    _checkpointing(model, True)
                try:
                    trainer.train(resume_from_checkpoint=checkpoint)
                finally:
                    if settings.checkpointing:
                        _checkpointing(model, False)
                    model.eval()
                if trainer.is_fsdp_enabled:
                    raise TrainingError(
                        f"the run is done, and its weights are sharded: the last checkpoint in {str(folder)!r} has "
                        "them; make one file of it with accelerate merge-weights"
                    )
                if lora is not None:
                    lora.merge(folder if trainer.is_world_process_zero() else None)
        finally:
            for one, before in asked:
                one.requires_grad_(before)
        trained = attached.trained(settings.target_length)
    text = f"clex:profile={folder / NETWORK}" if isinstance(trained, CLEX) else _text(trained, attached, settings)
    if trainer.is_world_process_zero():
        if isinstance(trained, CLEX):
            trained.to_profile(attached.spec, steps=settings.steps, length=settings.length).save(folder / NETWORK)
        if not settings.network_only:
            model.save_pretrained(folder)
        _save(attached, settings, folder)
    trainer.accelerator.wait_for_everyone()
    return Result(folder, text, losses(trainer))


def _require(
    model: PreTrainedModel, method: Method, sampler: Sampler, documents: Sequence[np.ndarray], settings: Settings
) -> None:
    """Refuse what cannot be trained before anything is written."""
    if not sampler.spreads(settings.length):
        raise TrainingError(
            f"{sampler}: sequences of {settings.length} tokens would see no position of a longer text; give a larger "
            "target length"
        )
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise TrainingError(
            "gradient checkpointing is on, and its reentrant kind cannot go through a trained table; switch it off and "
            "set checkpointing in the settings"
        )
    if settings.network_only and not isinstance(method, CLEX):
        raise TrainingError(f"{method.name} has no network to train alone; leave network_only off")
    vocabulary = model.get_input_embeddings().num_embeddings
    largest = max((int(one.max()) for one in documents if len(one)), default=0)
    if largest >= vocabulary:
        raise TrainingError(f"the data have the token id {largest}, the model has {vocabulary}; take ids of this model")


def _sha256(documents: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for one in documents:
        digest.update(f"\n{one.dtype}{one.shape}\n".encode())
        digest.update(np.ascontiguousarray(one).data)
    return digest.hexdigest()


def _text(method: Method, attached: Attached, settings: Settings) -> str:
    """The method with what the target filled in, where its text can say it; else as it was given."""
    filled = method.resolve(attached.spec, settings.target_length)
    filled = replace(filled, logit_scale=method.logit_scale, log_n=method.log_n)
    return str(filled) if parse(str(filled)) == filled else str(method)


def _save(attached: Attached, settings: Settings, folder: Path) -> None:
    """Write what `ropewalk.from_pretrained` loads: the method beside the weights of this folder, or of the model's."""
    place = folder / EXTENSION
    shutil.rmtree(place, ignore_errors=True)  # of a run that was broken off here
    source = attached.model.config._name_or_path if settings.network_only else str(folder.resolve())
    if not source:
        return
    with attached.extended(settings.target_length) as extension:
        save(extension, place, base=source)


def _checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Switch gradient checkpointing, under its newer name where there is one; never the reentrant kind.

    The reentrant kind runs backward through the table of CLEX once for every layer, which it cannot.
    """
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if on:
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_checkpointing_disable")()
