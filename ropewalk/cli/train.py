"""`ropewalk train METHOD MODEL --data FILE`: fine-tune a model, or the network of CLEX, for longer texts."""

from functools import cache, partial
from typing import Annotated, Any

import typer

from ropewalk.cli.options import (
    Accumulate,
    Json,
    MethodArgument,
    ModelArgument,
    OutputFolder,
    PretrainedLength,
    Resume,
    SaveEvery,
    Seed,
    Steps,
    Warmup,
    length_option,
)
from ropewalk.cli.output import opened
from ropewalk.errors import ModelError, TrainingError
from ropewalk.lengths import parse_length


def train(
    method: MethodArgument,
    model: ModelArgument,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="FILE",
            help="A .txt file (one document); a .jsonl or .parquet file, or a folder of datasets (one a row, under "
            "text, ids or input_ids); or a bundled text. Repeat it.",
            show_default=False,
        ),
    ],
    output: OutputFolder,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            metavar="NAME",
            help="contiguous, pose, randpos, e2-llm, mixed or clex.",
            show_default="clex for clex, else contiguous",
        ),
    ] = None,
    chunks: Annotated[int, typer.Option("--chunks", min=1, metavar="INTEGER", help="Chunks of pose.")] = 2,
    short: Annotated[
        float, typer.Option("--short", metavar="SHARE", help="mixed: share of rows that are packs of short documents.")
    ] = 0.3,
    join: Annotated[
        bool, typer.Option("--join", help="Put documents end to end, so that short ones are not left out.")
    ] = False,
    length: Annotated[
        int | None,
        length_option("--length", "Tokens of a training sequence.", show_default="the trained window"),
    ] = None,
    target_length: Annotated[
        int | None,
        length_option(
            "--target-length",
            "Tokens that texts may grow to afterwards.",
            show_default="16 trained windows for clex, else what the method reaches",
        ),
    ] = None,
    steps: Steps = 1000,
    batch: Annotated[int, typer.Option("--batch", metavar="INTEGER", help="Sequences in one forward.")] = 4,
    accumulate: Accumulate = 1,
    rate: Annotated[
        float, typer.Option("--rate", metavar="NUMBER", help="Learning rate of the model's weights.")
    ] = 2e-5,
    network_rate: Annotated[
        float, typer.Option("--network-rate", metavar="NUMBER", help="clex: learning rate of the network.")
    ] = 2e-5,
    network_only: Annotated[
        bool, typer.Option("--network-only", help="clex: leave the model's weights as they are.")
    ] = False,
    lora: Annotated[
        int, typer.Option("--lora", metavar="RANK", help="Train low-rank updates of this rank, merged at the end.")
    ] = 0,
    lora_alpha: Annotated[
        float, typer.Option("--lora-alpha", metavar="NUMBER", help="The updates are scaled by alpha / rank.")
    ] = 16.0,
    lora_targets: Annotated[
        str, typer.Option("--lora-targets", metavar="NAMES", help="Layers that have updates: q_proj,v_proj.")
    ] = "all-linear",
    amplification: Annotated[
        int, typer.Option("--amplification", metavar="INTEGER", help="clex: hidden units per rotary dimension.")
    ] = 1,
    warmup: Warmup = 10,
    clip: Annotated[
        float, typer.Option("--clip", metavar="NUMBER", help="Gradient norm; of the model and of the network apart.")
    ] = 1.0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again in the backward pass: less memory.")
    ] = False,
    save_every: SaveEvery = 100,
    log_every: Annotated[int, typer.Option("--log-every", metavar="INTEGER", help="Steps between lines.")] = 10,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the log for TensorBoard too, into FOLDER/tensorboard.")
    ] = False,
    evaluate_lengths: Annotated[
        str | None,
        typer.Option("--evaluate-lengths", metavar="LENGTHS", help="Evaluate at these while training: 4k,16k."),
    ] = None,
    evaluate_data: Annotated[
        list[str] | None,
        typer.Option("--evaluate-data", metavar="FILE", help="Held-out documents, for their loss; as --data."),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", metavar="INTEGER", help="Steps between evaluations.")
    ] = 100,
    needles: Annotated[
        int, typer.Option("--needles", metavar="INTEGER", help="Documents of ten needles to ask at every length.")
    ] = 0,
    resume: Resume = False,
    pretrained_length: PretrainedLength = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a model under a method on short sequences whose positions are those of long texts."""
    with opened(as_json) as out:
        import torch

        from ropewalk.methods import parse
        from ropewalk.models.loading import load_config, load_network, load_tokenizer
        from ropewalk.models.spec import spec_from_config
        from ropewalk.models.versions import require_transformers
        from ropewalk.train.choose import method_for, sampler_for, target_of
        from ropewalk.train.evaluation import Evaluation
        from ropewalk.train.run import train as run
        from ropewalk.train.settings import Settings
        from ropewalk.train.tokens import read_documents

        require_transformers()
        asked = parse(method)
        spec = spec_from_config(load_config(model), pretrained=pretrained_length)
        target = target_of(asked, spec, target_length)
        trained = method_for(asked, spec, target)
        sampler = sampler_for(positions, trained, spec, target, chunks=chunks, short=short)
        settings = Settings(
            method=str(trained),
            positions=str(sampler),
            length=length or spec.pretrained_length,
            target_length=target,
            steps=steps,
            batch=batch,
            accumulate=accumulate,
            rate=rate,
            network_rate=network_rate,
            network_only=network_only,
            lora=lora,
            lora_alpha=lora_alpha,
            lora_targets=lora_targets,
            warmup=warmup,
            clip=clip,
            amplification=amplification,
            checkpointing=checkpointing,
            seed=seed,
            save_every=save_every,
            log_every=log_every,
        )

        @cache
        def tokenizer() -> Any:
            return load_tokenizer(model)

        documents = read_documents(data, tokenizer, end=join)
        documents = documents.joined() if join else documents
        evaluation = None
        if evaluate_lengths is not None:
            evaluation = Evaluation(
                lengths=[parse_length(one) for one in evaluate_lengths.split(",")],
                every=evaluate_every,
                documents=read_documents(evaluate_data, tokenizer) if evaluate_data else (),
                needles=needles,
                tokenizer=tokenizer() if needles else None,
            )
        elif evaluate_data or needles:
            raise TrainingError("evaluation takes lengths; give --evaluate-lengths")
        network = load_network(model, dtype=torch.float32)  # small steps are lost in 16 bits
        out.notes.print(
            f"{trained} on {len(documents.ids):,} tokens: {steps} steps of {batch * accumulate} sequences of "
            f"{settings.length} tokens, positions {sampler}",
            markup=False,
            soft_wrap=True,
        )
        result = run(
            network,
            trained,
            sampler,
            documents,
            settings,
            output,
            resume=resume,
            pretrained_length=pretrained_length,
            evaluation=evaluation,
            board=tensorboard,
            tell=partial(out.notes.print, markup=False, soft_wrap=True),
        )
        try:
            tokenizer().save_pretrained(output)
        except ModelError:  # data were token ids, and the model came without one
            out.notes.print(f"{model} has no tokenizer, so neither has {output}", markup=False, soft_wrap=True)
        last = list(result.losses.values())[-1] if result.losses else None
        place = model if network_only else str(output)
        told = "" if last is None else f"loss {last:.4f} at step {steps}; "
        out.console.print(
            f"{told}use it: ropewalk generate --model {place} --method {result.method}", markup=False, soft_wrap=True
        )
        out.finish({"folder": str(output), "model": place, "method": result.method, "losses": result.losses})
