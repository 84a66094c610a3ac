"""`ropewalk estimate MODEL`: the memory, operations and layout that a length needs, before anyone pays for it."""

from typing import Annotated

import typer

from ropewalk.cli.options import Json, Length, MethodOption, ModelArgument, PretrainedLength
from ropewalk.cli.output import opened
from ropewalk.errors import RopewalkError

ENGINES = ("transformers", "vllm")


def estimate(
    model: ModelArgument,
    length: Length,
    method: MethodOption = "none",
    gpus: Annotated[
        int,
        typer.Option(
            "--gpus", metavar="INTEGER", min=0, help="Devices to spread the model over; 0: a process on a CPU."
        ),
    ] = 1,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="Of weights and keys.", show_default="the model's")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="transformers or vllm, whose pages hold more.")
    ] = "transformers",
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            metavar="INTEGER",
            min=0,
            help="Tokens that are read at once; 0 reads all.",
            show_default="all with transformers, 2048 with vllm",
        ),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option("--flops", metavar="NUMBER", min=1, help="Operations per second of one device: adds seconds."),
    ] = None,
    pretrained_length: PretrainedLength = None,
    as_json: Json = False,
) -> None:
    """Say what memory, time and layout a model and length need, from the configuration alone."""
    if engine not in ENGINES:
        raise RopewalkError(f"unknown engine {engine!r}; give --engine {' or --engine '.join(ENGINES)}")
    with opened(as_json) as out:
        from ropewalk.methods import parse
        from ropewalk.models.loading import load_config
        from ropewalk.models.spec import spec_from_config
        from ropewalk.serve.estimate import CHUNK, dtype_of, lines, need

        config = load_config(model)
        spec = spec_from_config(config, pretrained=pretrained_length)
        filled = parse(method).resolve(spec, length)
        filled.check_target(spec, length)
        needed = need(
            config,
            length,
            dtype=dtype_of(dtype, config),
            plan=filled.plan(spec, length),
            chunk=(CHUNK if engine == "vllm" else None) if chunk is None else chunk or None,
            devices=max(gpus, 1),
            pages=engine == "vllm",
            on_cpu=gpus == 0,
        )
        for line in lines(needed, length):
            out.console.print(line, markup=False, soft_wrap=True)
        seconds = None if flops is None else needed.operations / flops / needed.devices
        if seconds is not None:
            out.console.print(f"  at {flops:.3g} operations a second on each device: {seconds:,.1f} s", markup=False)
        out.finish({"model": model, "method": method, "length": length, **needed.to_json(), "seconds": seconds})
