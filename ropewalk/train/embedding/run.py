"""One training run on the new rows of a position table; resumable to the same weights."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback

from ropewalk.errors import TrainingError
from ropewalk.evaluate import corpus
from ropewalk.methods.tables import TableMethod, parse_table
from ropewalk.methods.tables.weights import Weights, fingerprint
from ropewalk.models.embedding.extension import TableExtension
from ropewalk.models.embedding.sentence import inner_model
from ropewalk.models.huggingface import extend
from ropewalk.models.versions import versions
from ropewalk.train.embedding.pairs import Pairs
from ropewalk.train.embedding.rows import NewRows, collate, fresh
from ropewalk.train.embedding.settings import TuneSettings
from ropewalk.train.run import Result
from ropewalk.train.trainer import Clip, OrderedTrainer, arguments, begin, losses, require_accelerate

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def tune(
    pipeline: "SentenceTransformer",
    settings: TuneSettings,
    pairs: Sequence[tuple[str, str]],
    folder: str | Path,
    *,
    resume: bool = False,
    pretrained_length: int | None = None,
    data: Sequence[str] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Train the new rows of a longer position table, and write them into a folder; the model is left as it was.

    Args:
        pipeline: a SentenceTransformer around an encoder with a position table.
        settings: of the run; they are written into the folder.
        pairs: of texts that belong together.
        folder: where checkpoints and the result go.
        resume: go on after the last checkpoint in the folder, to the weights of a run that was not interrupted.
        pretrained_length: positions of the table that were trained, where not all were.
        data: where the pairs come from, for the record.

    Raises:
        TrainingError: settings, pairs or a checkpoint that do not fit; a loss that is not finite.
        MethodError, ModelError: as `ropewalk.extend`.
    """
    folder = Path(folder)
    require_accelerate()
    method = parse_table(settings.method)
    if not isinstance(method, TableMethod) or method.needs == "training":
        raise TrainingError(
            f"{method.name} makes no table that could be trained; take recurrent-positions or interpolated-positions"
        )
    extension = extend(
        inner_model(pipeline), method, target_length=settings.target_length, pretrained_length=pretrained_length
    )
    assert isinstance(extension, TableExtension)
    with extension:
        trained = extension.table.pretrained_length
        if settings.length > trained:
            raise TrainingError(f"texts of {settings.length} tokens are longer than the trained {trained}; cut them")
        if not fresh(extension).any():
            raise TrainingError(f"a table of {settings.target_length} positions has no new rows; raise the target")
        given = arguments(settings, folder)
        tokenizer = pipeline.tokenizer
        examples = Pairs(
            pairs,
            tokenizer,
            length=settings.length,
            last_start=settings.target_length - trained,
            count=settings.count * given.world_size,
            seed=settings.seed,
        )
        settings = replace(settings, pairs_and_table_sha256=_sha256(pairs, extension))
        checkpoint = begin(settings, folder, resume=resume)
        asked = [(one, one.requires_grad) for one in pipeline.parameters()]
        training, device = pipeline.training, pipeline.device
        try:
            pipeline.requires_grad_(False).eval().to(given.device)
            new = NewRows(pipeline, extension, temperature=settings.temperature)
            trainer = OrderedTrainer(
                model=new,
                args=given,
                train_dataset=examples,
                data_collator=partial(collate, extension=extension, padding=tokenizer.pad_token_id or 0),
                callbacks=[Clip(settings.clip), *callbacks],
                optimizers=(torch.optim.AdamW(new.parameters(), lr=settings.rate, weight_decay=0.0), None),
            )
            trainer.train(resume_from_checkpoint=checkpoint)
        finally:
            pipeline.train(training).to(device)
            for one, before in asked:
                one.requires_grad_(before)
        _weights(new, extension, settings, data).save(folder)
    return Result(folder, f"tuned-positions:weights={folder}", losses(trainer))


def _sha256(pairs: Sequence[tuple[str, str]], extension: TableExtension) -> str:
    digest = hashlib.sha256(json.dumps(list(pairs)).encode())
    digest.update(extension.rows.float().cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _weights(new: NewRows, extension: TableExtension, settings: TuneSettings, data: Sequence[str]) -> Weights:
    table = extension.table
    weight = table.embedding.weight.detach()[table.offset : table.offset + table.pretrained_length]
    return Weights(
        base=str(extension.method),
        stride=extension.method.stride,
        pretrained_length=table.pretrained_length,
        target_length=extension.target_length,
        fingerprint=fingerprint(weight.float().cpu().numpy()),
        table=new.table().detach()[table.offset :].float().cpu().numpy(),
        provenance={
            "settings": asdict(settings),
            "data": list(data),
            "corpora": [corpus.sha256(name) for name in data],
            "versions": versions(),
        },
    )
