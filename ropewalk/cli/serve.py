"""`ropewalk serve MODEL`: an OpenAI-compatible server of a model with a method, run by vLLM."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import METHOD_HELP, Json, ModelArgument, PretrainedLength, TargetLength
from ropewalk.cli.output import opened
from ropewalk.errors import ModelError, RopewalkError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ropewalk.serve.served import Served
    from ropewalk.serve.setting import Setting


def serve(
    context: typer.Context,
    model: ModelArgument,
    method: Annotated[
        str | None, typer.Option("--method", metavar="METHOD", help=METHOD_HELP, show_default="the model as it is")
    ] = None,
    target_length: TargetLength = None,
    pretrained_length: PretrainedLength = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="INTEGER", min=1, max=65535, help="Port to listen on.")] = 8000,
    gpus: Annotated[
        int,
        typer.Option("--gpus", metavar="INTEGER", min=1, help="Devices to spread the model over."),
    ] = 1,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="NAME", help="Of weights and keys.", show_default="the model's")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the engine's command, and start nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve a model with a method over HTTP (OpenAI's interface), run by vLLM; MODEL may be a folder of ropewalk.save.

    Words after -- go to the engine as they are.
    """
    with opened(as_json) as out:
        from ropewalk.models.loading import load_config
        from ropewalk.models.manifest import config_of
        from ropewalk.models.source import locate
        from ropewalk.serve import front
        from ropewalk.serve.estimate import GIB, available, dtype_of, lines, need
        from ropewalk.serve.served import served

        engine = front.installed()
        setting, source, own = _setting(model, method, target_length, pretrained_length)
        front.require_engine(engine, None if setting is None else setting.method or setting.folder)
        front.require_port(host, port)
        config = load_config(source) if own is None else config_of(own)
        now, longest = None, target_length
        if setting is not None:
            longest = longest or _reach(setting, config)
            now = served(setting, config.get_text_config(), longest)
            out.console.print(_said(now, model), markup=False, soft_wrap=True)
        length = longest or config.get_text_config().max_position_embeddings
        needed = need(
            config,
            length,
            dtype=dtype_of(dtype, config),
            plan=None if now is None else now.plan,
            devices=gpus,
            pages=True,
        )
        for line in lines(needed, length):
            out.console.print(line, markup=False, soft_wrap=True)
        if needed.each > available():
            raise ModelError(
                f"one request of {length} tokens needs about {needed.each / GIB:.1f} GiB, "
                f"{available() / GIB:.1f} GiB are free; take a smaller --target-length, more --gpus or a smaller model"
            )
        options = {"max-model-len": longest, "dtype": dtype, "tensor-parallel-size": gpus if gpus > 1 else None}
        told = front.overrides(setting, longest or 0) | ({} if own is None else front.restored(Path(source), own))
        words = front.command(
            engine, locate(source), host=host, port=port, told=told, options=options, rest=context.args
        )
        out.console.print(shlex.join(words), markup=False, soft_wrap=True)
        out.finish({"command": words, "engine": engine.name, "version": engine.version, "bytes": needed.each})
        if dry_run:
            return
    os.execv(words[0], words)


def _setting(
    model: str, method: str | None, target: int | None, trained: int | None
) -> "tuple[Setting | None, str, dict[str, Any] | None]":
    """What the engine is told, the model that it loads, and of a full folder the model's own configuration."""
    from ropewalk.models.manifest import FILE, Manifest
    from ropewalk.serve.setting import Setting

    folder = Path(model).expanduser()
    if (folder / FILE).is_file():
        if method is not None or trained is not None:
            raise RopewalkError(
                f"{model} is a saved extension and brings its method and trained window; leave --method and "
                "--pretrained-length out"
            )
        saved, place = Manifest.load(folder), str(folder.resolve())
        return Setting(folder=place), saved.base if saved.base_config is None else place, saved.base_config
    if method is None:
        return None, model, None
    return Setting(method=method, target_length=target, pretrained_length=trained), model, None


def _reach(setting: "Setting", config: "PretrainedConfig") -> int:
    """The target when none was given: what was saved, or what the method reaches as it was given."""
    from ropewalk.methods import parse
    from ropewalk.models.manifest import Manifest
    from ropewalk.models.spec import spec_from_config

    if setting.folder is not None:
        return Manifest.load(Path(setting.folder)).target_length
    assert setting.method is not None
    return parse(setting.method).natural_length(spec_from_config(config, pretrained=setting.pretrained_length))


def _said(now: "Served", model: str) -> str:
    """The effective context, in a line."""
    reach = now.method.reach(now.spec)
    end = "" if reach is None else f"; the method reaches {reach:,}"
    return (
        f"{now.method} on {model}: trained on {now.spec.pretrained_length:,} tokens, requests may grow to "
        f"{now.target_length:,}{end}"
    )
