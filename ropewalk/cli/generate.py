"""`ropewalk generate MODEL`: continue a prompt with a method attached, printing tokens as they come."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import (
    Backend,
    Json,
    MethodOption,
    ModelArgument,
    PretrainedLength,
    Seed,
    TargetLength,
)
from ropewalk.cli.output import Output, opened
from ropewalk.errors import ModelError, RopewalkError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


def generate(
    model: ModelArgument,
    method: MethodOption = "none",
    prompt_file: Annotated[
        str, typer.Option("--prompt-file", "-f", metavar="FILE", help="Text to continue; - reads stdin.")
    ] = "-",
    chat: Annotated[bool, typer.Option("--chat", help="Wrap the prompt in the model's chat template.")] = False,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="INTEGER", min=1, help="Most tokens to generate.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="NUMBER", min=0.0, help="0 takes the likeliest token each time.")
    ] = 0.0,
    target_length: TargetLength = None,
    pretrained_length: PretrainedLength = None,
    backend: Backend = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Continue a prompt with a method attached; tokens are printed as they come."""
    with opened(as_json) as out:
        text = _read(prompt_file)

        import torch

        import ropewalk
        from ropewalk.methods import parse
        from ropewalk.models.loading import accelerator, load_config, load_model, load_tokenizer
        from ropewalk.models.spec import spec_from_config

        wanted = parse(method)
        inputs = _encode(load_tokenizer(model), text, chat)
        prompt_tokens = inputs["input_ids"].shape[1]
        needed = prompt_tokens + max_new_tokens
        target = needed if target_length is None else target_length
        if target < needed:
            raise RopewalkError(
                f"--target-length {target} is less than the prompt of {prompt_tokens} tokens and {max_new_tokens} new "
                f"ones; give at least {needed} or leave it out"
            )
        spec = spec_from_config(load_config(model), pretrained=pretrained_length)
        wanted.resolve(spec, target).check_target(spec, target)  # refused before weights are loaded
        network, tokenizer = load_model(model, target_length=target, device=accelerator())
        torch.manual_seed(seed)
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature}
        with ropewalk.extend(
            network, wanted, target_length=target, backend=backend, pretrained_length=pretrained_length
        ) as extension:
            out.notes.print(extension.describe(), markup=False, soft_wrap=True)
            started = time.perf_counter()
            tokens = network.generate(
                **inputs.to(network.device),
                max_new_tokens=max_new_tokens,
                streamer=_streamer(tokenizer, out),
                **sampling,
            )
            seconds = time.perf_counter() - started
            new = tokens[0, prompt_tokens:]
            out.finish(
                {
                    "model": model,
                    "method": str(extension.method),
                    "backend": extension.backend,
                    "target_length": target,
                    "prompt_tokens": prompt_tokens,
                    "new_tokens": len(new),
                    "text": tokenizer.decode(new, skip_special_tokens=True),
                    "seed": seed,
                    "seconds": seconds,
                }
            )


def _read(source: str) -> str:
    """The prompt; raises RopewalkError when there is none, the file cannot be read or it is not UTF-8."""
    if source == "-" and sys.stdin.isatty():
        raise RopewalkError("no prompt was given; name a file with --prompt-file FILE, or pipe text to stdin")
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise RopewalkError(f"cannot read the prompt file {source!r}: {error.strerror}; give a text file") from error
    except UnicodeDecodeError as error:
        raise RopewalkError(f"the prompt {source!r} is not UTF-8 text ({error.reason}); convert it first") from error
    if not text.strip():
        raise RopewalkError(f"the prompt {source!r} is empty; give it at least one word")
    return text


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, chat: bool) -> "BatchEncoding":
    """Token ids and mask of one prompt, int64 [1, T]."""
    if not chat:
        return tokenizer(text, return_tensors="pt")
    if tokenizer.chat_template is None:
        raise ModelError("the model's tokenizer has no chat template; leave out --chat and write the prompt in full")
    message = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True, return_tensors="pt")


def _streamer(tokenizer: "PreTrainedTokenizerBase", out: Output) -> Any:
    """A transformers streamer that writes to the verb's own stream; transformers' writes to stdout."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            out.write(text + "\n" if stream_end else text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
