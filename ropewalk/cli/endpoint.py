"""`ropewalk endpoint TASK...`: ask an OpenAI-compatible server what a local model is asked, into the same store."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ropewalk.cli.options import Corpus, Json, Lengths, Samples, Seeds, StoreOption
from ropewalk.cli.output import opened
from ropewalk.lengths import parse_length

if TYPE_CHECKING:
    from ropewalk.evaluate.endpoint.cost import Estimate


def ask(
    tasks: Annotated[
        list[str],
        typer.Argument(metavar="TASK...", help="Tasks or suites whose answers are text.", show_default=False),
    ],
    url: Annotated[
        str,
        typer.Option(
            "--url", metavar="URL", help="Of the server, such as http://127.0.0.1:8000/v1.", show_default=False
        ),
    ],
    served: Annotated[
        str, typer.Option("--served", metavar="NAME", help="The model, as the server calls it.", show_default=False)
    ],
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            metavar="MODEL",
            help="Where its tokenizer is from: hub id, local folder, .gguf file or package:NAME.",
            show_default=False,
        ),
    ],
    lengths: Lengths,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What tables and figures call it.")] = "endpoint",
    samples: Samples = 4,
    seeds: Seeds = "0",
    template: Annotated[
        str, typer.Option("--template", metavar="NAME", help="base asks the completions API, chat the chat API.")
    ] = "base",
    corpus: Corpus = "sotu",
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key; never stored.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="INTEGER", help="Most requests under way at once.")
    ] = 4,
    requests_per_minute: Annotated[
        int | None, typer.Option("--requests-per-minute", metavar="INTEGER", show_default="no limit")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", metavar="INTEGER", show_default="no limit")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="For which the server may be silent.")
    ] = 600.0,
    max_retries: Annotated[int, typer.Option("--max-retries", metavar="INTEGER", help="Of one request.")] = 5,
    prompt_price: Annotated[
        float | None, typer.Option("--prompt-price", metavar="NUMBER", help="Of a million prompt tokens.")
    ] = None,
    completion_price: Annotated[
        float | None, typer.Option("--completion-price", metavar="NUMBER", help="Of a million generated tokens.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="NUMBER", help="No document is begun that could pass it.")
    ] = None,
    store: StoreOption = Path("runs/results.db"),
    as_json: Json = False,
) -> None:
    """Ask an OpenAI-compatible server the prompts that a local model reads, and store the scores beside its own.

    Every document is stored as it comes; the same command goes on where it was stopped.
    """
    with opened(as_json) as out:
        from ropewalk.cli.evaluate import table
        from ropewalk.evaluate.endpoint.run import evaluate_endpoint
        from ropewalk.evaluate.endpoint.settings import Endpoint
        from ropewalk.evaluate.row import results
        from ropewalk.evaluate.store import Store
        from ropewalk.evaluate.sweep import collect
        from ropewalk.evaluate.unit import Setup, read_seeds
        from ropewalk.models.loading import load_tokenizer

        endpoint = Endpoint(
            url,
            served,
            name=name,
            api_key_env=api_key_env,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout=timeout,
            max_retries=max_retries,
            prompt_price=prompt_price,
            completion_price=completion_price,
            max_cost=max_cost,
        )

        def on_estimate(estimate: "Estimate") -> None:
            out.notes.print(str(estimate), markup=False, soft_wrap=True)

        with Store(store) as kept, out.notes.status("asking") as status:
            done = evaluate_endpoint(
                endpoint,
                load_tokenizer(tokenizer),
                tokenizer_name=tokenizer,
                tasks=tasks,
                lengths=[parse_length(length) for length in lengths.split(",")],
                store=kept,
                samples=samples,
                seeds=read_seeds(seeds),
                setup=Setup(corpus=corpus, template=template),
                on_estimate=on_estimate,
                progress=lambda standing: status.update(str(standing.spent)),
            )
            measured = results(collect(kept, done.keys))
        out.notes.print(f"{done.measured} samples asked now; {done.spent}; in {store}", markup=False, soft_wrap=True)
        if done.stopped:
            print(f"stopped: {done.stopped}", file=sys.stderr)
        if not as_json:
            out.console.print(table(measured))
        out.finish({"results": [result.to_json() for result in measured], "stopped": done.stopped})
        done.refuse_failures()
