"""`ropewalk calibrate`: find what a method needs to know of one model, and keep it as a profile."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ropewalk.cli.options import Backend, Json, ModelArgument, Seed, length_option
from ropewalk.cli.output import Output, opened
from ropewalk.cli.readings import Readings
from ropewalk.cli.searches import Budget, Corpus, Out, Ray, Task, Workers, joint, longrope
from ropewalk.errors import RopewalkError

if TYPE_CHECKING:
    from ropewalk.calibrate.request import Request
    from ropewalk.profile import Profile

app = typer.Typer(help="Find what a method needs to know of one model, and keep it as a profile.", add_completion=False)

Share = Annotated[
    str, typer.Option("--share", metavar="NAME", help="Who shares key dimensions: head (as published), kv or layer.")
]
PICTURES = (".png", ".pdf", ".svg")
Figure = Annotated[
    Path | None,
    typer.Option("--figure", metavar="FILE", help=f"Also save a picture ({', '.join(PICTURES)}).", show_default="-"),
]
KeyDocuments = Annotated[
    int, typer.Option("--key-documents", metavar="INTEGER", min=1, help="Texts that key dimensions are found on.")
]


app.command("joint")(joint)
app.command("longrope")(longrope)


@app.command("dpe")
def dpe(
    model: ModelArgument,
    target: Annotated[
        int,
        length_option("--target", "Tokens to calibrate for: the trained window, or more.", show_default=False),
    ],
    out: Out,
    budget: Budget = "1h",
    groups: Annotated[
        str,
        typer.Option(
            "--groups",
            metavar="GROUPS",
            help="Of rotary pairs: 8 equal ones; borders, wavelength / trained window, such as 1/4,1,4,16; or auto: "
            "the finest that the budget can decide.",
        ),
    ] = "auto",
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help="halving, or paper: the authors' own, at its full cost."),
    ] = "halving",
    search: Annotated[
        str,
        typer.Option("--search", metavar="NAMES", help="What else to search: window,logit_scale.", show_default="-"),
    ] = "",
    task: Task = "needle",
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="INTEGER",
            min=1,
            help="Rotary pairs of a head that are key dimensions; found first, on text.",
            show_default="all",
        ),
    ] = None,
    share: Share = "head",
    key_documents: KeyDocuments = 10,
    documents: Annotated[
        int, typer.Option("--documents", metavar="INTEGER", min=1, help="Of each setting, with --protocol paper.")
    ] = 100,
    margin: Annotated[
        float,
        typer.Option("--margin", metavar="NATS", min=0.0, help="How much worse a scale as good as the best may be."),
    ] = 0.1,
    corpus: Corpus = "moby-dick",
    seed: Seed = 0,
    backend: Backend = "auto",
    workers: Workers = 1,
    ray: Ray = None,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Find DPE's scale for every group of rotary pairs, confirm them together, and keep the profile.

    Every trial is stored as it comes; the same command goes on where it was stopped. Use the profile as
    dpe:profile=FILE.
    """
    began = time.monotonic()
    with opened(as_json) as out_:
        _require_picture(figure)
        from rich.progress import Progress

        from ropewalk.calibrate.curves import draw_curves
        from ropewalk.calibrate.request import Request
        from ropewalk.calibrate.rule import Rule

        request = Request(
            model=model,
            target_length=target,
            budget=budget,
            groups=groups,
            protocol=protocol,
            search=tuple(filter(None, search.split(","))),
            task=task,
            documents=documents,
            top_k=top_k,
            share=share,
            key_documents=key_documents,
            corpus=corpus,
            seed=seed,
            rule=Rule(margin=margin),
        )
        with Progress(console=out_.notes) as bar:
            follow = Readings(bar)
            if workers == 1 and ray is None:
                profile = _here(request, out, follow, backend=backend, began=began)
            else:
                profile = _elsewhere(request, out, follow, backend=backend, began=began, workers=workers, ray=ray)
        if figure is not None:
            draw_curves([profile], figure)
        _answer(profile, out, out_)


@app.command("keys")
def keys(
    model: ModelArgument,
    out: Out,
    top_k: Annotated[
        int,
        typer.Option("--top-k", metavar="INTEGER", min=1, help="Rotary pairs of a head to choose.", show_default=False),
    ],
    share: Share = "head",
    documents: KeyDocuments = 10,
    corpus: Corpus = "moby-dick",
    seed: Seed = 0,
    figure: Figure = None,
    as_json: Json = False,
) -> None:
    """Find the key dimensions of every head (DPE's step 2) in one pass over text, and draw them."""
    with opened(as_json) as out_:
        from ropewalk.calibrate.dpe import require_out

        require_out(out)
        _require_picture(figure)
        from rich.progress import Progress

        from ropewalk.calibrate.heatmap import draw_norms
        from ropewalk.calibrate.keyfile import find_keys
        from ropewalk.models.huggingface import read_spec
        from ropewalk.models.loading import load_model

        loaded, tokenizer = load_model(model)
        spec = read_spec(loaded)
        out_.notes.print(f"{documents} texts of {spec.pretrained_length} tokens")
        with Progress(console=out_.notes) as bar:
            line = bar.add_task("key dimensions", total=1.0)
            profile = find_keys(
                loaded,
                tokenizer,
                spec,
                out,
                top_k=top_k,
                share=share,
                documents=documents,
                corpus=corpus,
                seed=seed,
                progress=lambda done: bar.update(line, completed=done),
            )
        if figure is not None:
            draw_norms(profile.arrays["pair_norms"], profile.arrays["mask"], spec, figure, title=model)
        shares = profile.arrays["mask"].mean((0, 1)).tolist()
        if not as_json:
            told = " ".join(f"{share:.2f}" for share in shares)
            out_.console.print(f"share of heads that choose each pair, fastest first: {told}", soft_wrap=True)
        out_.finish({"profile": str(out), "figure": None if figure is None else str(figure), "share_of_heads": shares})


def _require_picture(file: Path | None) -> None:
    if file is not None and (file.suffix not in PICTURES or not file.parent.is_dir()):
        raise RopewalkError(
            f"cannot save {str(file)!r}; give a file in a folder that exists whose name ends in {', '.join(PICTURES)}"
        )


def _here(request: "Request", out: Path, follow: Readings, *, backend: str, began: float) -> "Profile":
    """With the model loaded in this process."""
    from ropewalk.calibrate.dpe import require_request
    from ropewalk.calibrate.local import calibrate
    from ropewalk.models.loading import load_config, load_model
    from ropewalk.models.spec import spec_from_config

    require_request(request, spec_from_config(load_config(request.model)), out)  # before weights are loaded
    loaded, tokenizer = load_model(request.model, target_length=request.target_length)
    return calibrate(loaded, tokenizer, request, out, backend=backend, say=follow.say, on_event=follow, began=began)


def _elsewhere(
    request: "Request", out: Path, follow: Readings, *, backend: str, began: float, workers: int, ray: str | None
) -> "Profile":
    """With workers that load the model; here it is loaded only while key dimensions are found."""
    from ropewalk.calibrate.dpe import beside, require_request
    from ropewalk.calibrate.local import finish, keys_of, require_text
    from ropewalk.calibrate.trials import in_processes
    from ropewalk.evaluate.unit import Setup
    from ropewalk.models.huggingface import read_spec
    from ropewalk.models.loading import load_config, load_model, load_tokenizer
    from ropewalk.models.spec import spec_from_config

    spec = spec_from_config(load_config(request.model))
    require_request(request, spec, out)
    require_text(load_tokenizer(request.model), request)
    found = None
    if request.top_k is not None:
        loaded, tokenizer = load_model(request.model)
        found = keys_of(loaded, tokenizer, read_spec(loaded), request, out, say=follow.say)
    setup = Setup(corpus=request.corpus, backend=backend)
    executor = in_processes(request.model, setup, beside(out, "trials.db"), follow, workers=workers, ray=ray)
    return finish(request, spec, executor, out, keys=found, say=follow.say, began=began, workers=workers)


def _answer(profile: "Profile", path: Path, out: Output) -> None:
    made = profile.provenance
    read = made["read"]
    if not out.as_json:
        out.console.print(
            f"{made['kept']}: dpe:profile={path} for {made['target_length']} tokens; {read['readings']} readings, "
            f"{read['tokens']:,} tokens, {read['seconds'] / 60:.1f} minutes",
            markup=False,
            soft_wrap=True,
        )
    wanted = ("target_length", "kept", "confirmation", "budget", "read", "axes", "uniform")
    out.finish({"profile": str(path), "values": profile.values, **{name: made[name] for name in wanted}})
