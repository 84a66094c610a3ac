"""`ropewalk export METHOD`: a model with the frequency table of a method in it, for engines without ropewalk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import Json, MethodArgument, ModelOption, PretrainedLength, length_option
from ropewalk.cli.output import Output, opened
from ropewalk.errors import RopewalkError
from ropewalk.models.source import DEFAULT_MODEL

if TYPE_CHECKING:
    from ropewalk.methods import Method
    from ropewalk.rotary import RotarySpec

FORMATS = ("hf", "gguf")


def export(
    method: MethodArgument,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="hf (a transformers folder) or gguf.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    target_length: Annotated[
        int | None,
        length_option(
            "--target-length",
            "Tokens that the method is set up for.",
            show_default="what the method reaches as it is given",
        ),
    ] = None,
    pretrained_length: PretrainedLength = None,
    max_error: Annotated[
        float,
        typer.Option(
            "--max-error", metavar="NUMBER", min=0.0, help="gguf: largest relative error of a frequency to accept."
        ),
    ] = 0.0,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="hf: load the folder in stock transformers and compare the logits."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Write a model with a method's frequency table in it, for engines that know nothing of ropewalk."""
    if to not in FORMATS:
        raise RopewalkError(f"cannot export to {to!r}; give --to {' or --to '.join(FORMATS)}")
    with opened(as_json) as out:
        from ropewalk.methods import parse

        asked = parse(method)
        if to == "hf":
            files = _to_hf(out, asked, model, output, target_length, pretrained_length, check)
        else:
            files = _to_gguf(out, asked, model, output, target_length, pretrained_length, max_error)
        out.finish({"model": model, "method": method, "to": to, "files": files})


def _to_hf(
    out: Output, asked: "Method", model: str, output: Path, target: int | None, trained: int | None, check: bool
) -> list[dict[str, Any]]:
    import ropewalk
    from ropewalk.models.export.buckets import buckets
    from ropewalk.models.export.hf import PROBE, export_hf, stock_difference
    from ropewalk.models.export.rope import express
    from ropewalk.models.loading import load_config, load_model
    from ropewalk.models.spec import spec_from_config
    from ropewalk.models.versions import require_transformers

    require_transformers()
    config = load_config(model).get_text_config()
    spec = spec_from_config(config, pretrained=trained)
    length, filled = _filled(asked, spec, target)
    for bucket in buckets(filled, spec, length):  # what cannot be exported is refused before weights are loaded
        express(config, spec, filled, bucket)
    network, tokenizer = load_model(model, target_length=PROBE)
    files = []
    with ropewalk.extend(network, asked, target_length=length, pretrained_length=trained) as extension:
        for one in export_hf(extension, output, tokenizer):
            difference = stock_difference(extension, one) if check else None
            told = "" if difference is None else f"; logits of stock transformers differ by {difference:.1e}"
            out.console.print(
                f"{one.folder}: up to {one.length:,} tokens, rope type {one.rope_type}, "
                f"frequencies within {one.difference:.1e}{told}",
                markup=False,
                soft_wrap=True,
            )
            files.append(
                {
                    "path": str(one.folder),
                    "length": one.length,
                    "form": one.rope_type,
                    "frequency_difference": one.difference,
                    "logit_difference": difference,
                }
            )
    return files


def _to_gguf(
    out: Output, asked: "Method", model: str, output: Path, target: int | None, trained: int | None, max_error: float
) -> list[dict[str, Any]]:
    from ropewalk.models.export.gguf import export_gguf, spec_of
    from ropewalk.models.source import gguf_file

    source = gguf_file(model)
    if source is None:
        raise RopewalkError(
            f"--to gguf copies a GGUF and adds the table, and {model!r} is none; convert the model with llama.cpp's "
            "convert_hf_to_gguf.py first and give that file with --model"
        )
    spec = spec_of(source, trained)
    length, filled = _filled(asked, spec, target)
    files = []
    for one in export_gguf(source, output, filled, spec, length, max_error=max_error):
        out.console.print(
            f"{one.file}: up to {one.length:,} tokens, {one.form}, frequencies within {one.difference:.1e}",
            markup=False,
            soft_wrap=True,
        )
        files.append(
            {"path": str(one.file), "length": one.length, "form": one.form, "frequency_difference": one.difference}
        )
    return files


def _filled(asked: "Method", spec: "RotarySpec", target: int | None) -> "tuple[int, Method]":
    """The target length, and the method filled for it."""
    length = asked.natural_length(spec) if target is None else target
    filled = asked.resolve(spec, length)
    filled.check_target(spec, length)
    return length, filled
