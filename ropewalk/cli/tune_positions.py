"""`ropewalk tune-positions METHOD MODEL`: train the new rows of an encoder's longer position table."""

from typing import Annotated

import typer

from ropewalk.cli.options import (
    Accumulate,
    Json,
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

DATA = ("moby-dick",)  # evaluations hide their facts in the other text


def tune(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="recurrent-positions, interpolated-positions or grouped-positions.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Embedding model: hub id, local folder or package:NAME.", show_default=False
        ),
    ],
    target_length: Annotated[
        int,
        length_option("--target-length", "Tokens that texts may grow to afterwards.", show_default=False),
    ],
    output: OutputFolder,
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="TEXT", help="A bundled text, or a .txt file; repeat it."),
    ] = list(DATA),  # noqa: B006  (typer copies it)
    length: Annotated[
        int,
        length_option("--length", "Tokens that a text of a pair is cut at."),
    ] = 128,
    steps: Steps = 200,
    batch: Annotated[int, typer.Option("--batch", metavar="INTEGER", help="Pairs in one forward.")] = 32,
    accumulate: Accumulate = 1,
    rate: Annotated[float, typer.Option("--rate", metavar="NUMBER", help="Learning rate.")] = 5e-4,
    warmup: Warmup = 20,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="NUMBER", help="Cosine similarities are divided by it.")
    ] = 0.05,
    clip: Annotated[float, typer.Option("--clip", metavar="NUMBER", help="Gradient norm.")] = 1.0,
    save_every: SaveEvery = 100,
    resume: Resume = False,
    pretrained_length: PretrainedLength = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train the new rows of an embedding model's longer position table on short pairs; nothing else of it changes."""
    with opened(as_json) as out:
        from ropewalk.models.embedding.loading import load_embedder
        from ropewalk.models.versions import require_transformers
        from ropewalk.train.embedding.pairs import read_pairs
        from ropewalk.train.embedding.run import tune as run
        from ropewalk.train.embedding.settings import TuneSettings

        require_transformers()
        settings = TuneSettings(
            method=method,
            length=length,
            target_length=target_length,
            steps=steps,
            batch=batch,
            accumulate=accumulate,
            rate=rate,
            warmup=warmup,
            temperature=temperature,
            clip=clip,
            seed=seed,
            save_every=save_every,
        )
        pairs = read_pairs(data)
        out.notes.print(
            f"{method} for {target_length} tokens: {steps} steps of {batch * accumulate} pairs, of {len(pairs):,}",
            markup=False,
            soft_wrap=True,
        )
        result = run(
            load_embedder(model),
            settings,
            pairs,
            output,
            resume=resume,
            pretrained_length=pretrained_length,
            data=data,
        )
        last = list(result.losses.values())[-1] if result.losses else None
        told = "" if last is None else f"loss {last:.4f} at step {steps}; "
        out.console.print(f"{told}use it: method {result.method}", markup=False, soft_wrap=True)
        out.finish({"folder": str(output), "model": model, "method": result.method, "losses": result.losses})
