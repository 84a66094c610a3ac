"""`ropewalk train METHOD MODEL --data FILE`: fine-tune a model, or the network of CLEX, for longer texts."""

from pathlib import Path
from typing import Annotated

import typer

from ropewalk.cli.options import Json, MethodArgument, ModelArgument, PretrainedLength, Seed, read_length
from ropewalk.cli.output import opened


def train(
    method: MethodArgument,
    model: ModelArgument,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="FILE",
            help="A .txt file (one document), a .jsonl file (one a line, as text or ids) or a bundled text; repeat it.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Of the result and its checkpoints.", show_default=False),
    ],
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            metavar="NAME",
            help="contiguous, pose, randpos, e2-llm or clex.",
            show_default="clex for clex, else contiguous",
        ),
    ] = None,
    chunks: Annotated[int, typer.Option("--chunks", min=1, metavar="INTEGER", help="Chunks of pose.")] = 2,
    length: Annotated[
        int | None,
        typer.Option(
            "--length",
            parser=read_length,
            metavar="LENGTH",
            help="Tokens of a training sequence.",
            show_default="the trained window",
        ),
    ] = None,
    target_length: Annotated[
        int | None,
        typer.Option(
            "--target-length",
            parser=read_length,
            metavar="LENGTH",
            help="Tokens that texts may grow to afterwards.",
            show_default="16 trained windows for clex, else what the method reaches",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="INTEGER", help="Optimizer steps.")] = 1000,
    batch: Annotated[int, typer.Option("--batch", metavar="INTEGER", help="Sequences in one forward.")] = 4,
    accumulate: Annotated[int, typer.Option("--accumulate", metavar="INTEGER", help="Forwards in one step.")] = 1,
    rate: Annotated[
        float, typer.Option("--rate", metavar="NUMBER", help="Learning rate of the model's weights.")
    ] = 2e-5,
    network_rate: Annotated[
        float, typer.Option("--network-rate", metavar="NUMBER", help="clex: learning rate of the network.")
    ] = 2e-5,
    network_only: Annotated[
        bool, typer.Option("--network-only", help="clex: leave the model's weights as they are.")
    ] = False,
    amplification: Annotated[
        int, typer.Option("--amplification", metavar="INTEGER", help="clex: hidden units per rotary dimension.")
    ] = 1,
    warmup: Annotated[int, typer.Option("--warmup", metavar="INTEGER", help="Steps of linear warm-up.")] = 10,
    clip: Annotated[
        float, typer.Option("--clip", metavar="NUMBER", help="Gradient norm; of the model and of the network apart.")
    ] = 1.0,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again in the backward pass: less memory.")
    ] = False,
    save_every: Annotated[
        int, typer.Option("--save-every", metavar="INTEGER", help="Steps between checkpoints; the last two are kept.")
    ] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the last checkpoint in the folder, with the same settings.")
    ] = False,
    pretrained_length: PretrainedLength = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a model under a method on short sequences whose positions are those of long texts."""
    with opened(as_json) as out:
        from ropewalk.methods import parse
        from ropewalk.models.loading import load_config, load_model
        from ropewalk.models.spec import spec_from_config
        from ropewalk.models.versions import require_transformers
        from ropewalk.train.choose import method_for, sampler_for, target_of
        from ropewalk.train.data import read_documents
        from ropewalk.train.run import train as run
        from ropewalk.train.settings import Settings

        require_transformers()
        asked = parse(method)
        spec = spec_from_config(load_config(model), pretrained=pretrained_length)
        target = target_of(asked, spec, target_length)
        trained = method_for(asked, spec, target)
        sampler = sampler_for(positions, trained, spec, target, chunks=chunks)
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
            warmup=warmup,
            clip=clip,
            amplification=amplification,
            checkpointing=checkpointing,
            seed=seed,
            save_every=save_every,
        )
        network, tokenizer = load_model(model)
        documents = read_documents(data, tokenizer)
        out.notes.print(
            f"{trained} on {sum(map(len, documents)):,} tokens: {steps} steps of {batch * accumulate} sequences of "
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
            padding=tokenizer.pad_token_id or 0,
            pretrained_length=pretrained_length,
        )
        tokenizer.save_pretrained(output)
        last = list(result.losses.values())[-1] if result.losses else None
        place = model if network_only else str(output)
        told = "" if last is None else f"loss {last:.4f} at step {steps}; "
        out.console.print(
            f"{told}use it: ropewalk generate --model {place} --method {result.method}", markup=False, soft_wrap=True
        )
        out.finish({"folder": str(output), "model": place, "method": result.method, "losses": result.losses})
