"""`ropewalk calibrate joint` and `ropewalk calibrate longrope`: searches of many values at once."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ropewalk.cli.options import Backend, Json, ModelArgument, Seed, length_option
from ropewalk.cli.output import Output, opened
from ropewalk.cli.readings import Readings

if TYPE_CHECKING:
    from ropewalk.calibrate.local import Run
    from ropewalk.profile import Profile

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Profile to write, a .json file.", show_default=False)
]
Corpus = Annotated[str, typer.Option("--corpus", metavar="NAME", help="Text to read: a bundled one, or a .txt file.")]
Budget = Annotated[
    str, typer.Option("--budget", metavar="BUDGET", help="Minutes (20min, 2h) or tokens (512k, 2m) to read.")
]
Task = Annotated[str, typer.Option("--task", metavar="NAME", help="Needle task whose answers are scored.")]
Workers = Annotated[
    int, typer.Option("--workers", metavar="INTEGER", min=1, help="Processes that share the work and the cores.")
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Read on a Ray cluster's workers instead; local starts one."),
]
Documents = Annotated[
    int, typer.Option("--documents", metavar="INTEGER", min=1, help="That every candidate is read on.")
]


def joint(
    model: ModelArgument,
    start: Annotated[
        Path,
        typer.Option(
            "--from", metavar="FILE", help="Profile to start from, of ropewalk calibrate dpe.", show_default=False
        ),
    ],
    out: Out,
    budget: Budget = "2h",
    monotone: Annotated[
        bool, typer.Option("--monotone/--free", help="Scales never fall from fast groups to slow ones, or may.")
    ] = False,
    objective: Annotated[
        str, typer.Option("--objective", metavar="NAME", help="Loss of the text, of the needle's answers, or both.")
    ] = "both",
    documents: Documents = 2,
    population: Annotated[
        int | None,
        typer.Option(
            "--population",
            metavar="INTEGER",
            min=2,
            help="Candidates of a generation.",
            show_default="4 + 3 ln(values)",
        ),
    ] = None,
    task: Task = "needle",
    corpus: Corpus = "moby-dick",
    seed: Seed = 0,
    backend: Backend = "auto",
    workers: Workers = 1,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Search all scales of DPE at once (CMA-ES), with window and gain, from a detected profile on.

    What is found is compared with the detected and the uniform profile on documents held out. The same command goes on
    where it was stopped.
    """
    began = time.monotonic()
    with opened(as_json) as out_:
        from ropewalk.calibrate.joint import JointRequest, require, run, target_of

        request = JointRequest(
            model=model,
            start=str(start),
            target_length=target_of(start),
            budget=budget,
            monotone=monotone,
            objective=objective,
            documents=documents,
            population=population,
            task=task,
            corpus=corpus,
            seed=seed,
        )
        profile = _search(out_, run, require, request, out, backend=backend, workers=workers, ray=ray, began=began)
        _answer(profile, f"dpe:profile={out}", out, out_)


def longrope(
    model: ModelArgument,
    target: Annotated[
        int,
        length_option("--target", "Tokens to search for, more than the trained window.", show_default=False),
    ],
    out: Out,
    budget: Budget = "2h",
    search: Annotated[
        str,
        typer.Option("--search", metavar="NAME", help="cma, or as published: longrope, longrope2."),
    ] = "cma",
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="NAME",
            help="What is minimised: loss of the text, of the needle's answers, or both.",
            show_default="both for cma, text for longrope, needle for longrope2",
        ),
    ] = "",
    documents: Documents = 2,
    knots: Annotated[
        int | None,
        typer.Option(
            "--knots", metavar="INTEGER", min=2, help="Of cma.", show_default="8, or one for every pair if fewer"
        ),
    ] = None,
    population: Annotated[
        int,
        typer.Option(
            "--population", metavar="INTEGER", min=4, help="Of longrope and longrope2; half of it are parents."
        ),
    ] = 64,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="INTEGER", min=1, help="Of longrope and longrope2.")
    ] = 40,
    retain: Annotated[
        bool, typer.Option("--retain", help="Of longrope: search how many start tokens keep their angles, too.")
    ] = False,
    task: Task = "needle",
    corpus: Corpus = "moby-dick",
    seed: Seed = 0,
    backend: Backend = "auto",
    workers: Workers = 1,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Search a factor for every rotary pair, and compare it with PI, NTK and YaRN on documents held out.

    Use the profile as longrope:profile=FILE, also for ropewalk export. The same command goes on where it was stopped.
    """
    began = time.monotonic()
    with opened(as_json) as out_:
        from ropewalk.calibrate.factor_request import FactorRequest
        from ropewalk.calibrate.factors import require, run
        from ropewalk.calibrate.population import Sizes

        quarter = population // 4
        request = FactorRequest(
            model=model,
            target_length=target,
            budget=budget,
            search=search,
            objective=objective,
            documents=documents,
            knots=knots,
            population=Sizes(population, 2 * quarter, quarter, quarter, iterations=iterations),
            retain=retain,
            task=task,
            corpus=corpus,
            seed=seed,
        )
        profile = _search(out_, run, require, request, out, backend=backend, workers=workers, ray=ray, began=began)
        _answer(profile, f"longrope:profile={out}", out, out_)


def _search(
    out_: Output,
    run: "Run",
    require: Any,
    request: Any,
    out: Path,
    *,
    backend: str,
    workers: int,
    ray: str | None,
    began: float,
) -> "Profile":
    """With the model loaded in this process, or with workers that load it."""
    from rich.progress import Progress

    from ropewalk.calibrate.dpe import beside
    from ropewalk.calibrate.local import require_text, search
    from ropewalk.calibrate.trials import in_processes
    from ropewalk.evaluate.unit import Setup
    from ropewalk.models.loading import load_config, load_model, load_tokenizer
    from ropewalk.models.spec import spec_from_config

    spec = spec_from_config(load_config(request.model))
    require(request, spec, out)  # before weights are loaded
    with Progress(console=out_.notes) as bar:
        follow = Readings(bar)
        if workers == 1 and ray is None:
            loaded, tokenizer = load_model(request.model, target_length=request.target_length)
            return search(
                run, loaded, tokenizer, request, out, backend=backend, say=follow.say, on_event=follow, began=began
            )
        require_text(load_tokenizer(request.model), request)
        setup = Setup(corpus=request.corpus, backend=backend)
        executor = in_processes(request.model, setup, beside(out, "trials.db"), follow, workers=workers, ray=ray)
        profile = run(request, spec, executor, out, workers=workers, say=follow.say, began=began)
    profile.save(out)
    return profile


def _answer(profile: "Profile", method: str, path: Path, out: Output) -> None:
    made = profile.provenance
    held, read = made["held_out"], made["read"]
    if not out.as_json:
        for each in held["comparisons"]:
            low, high = each["saved"]["interval"]
            out.console.print(
                f"against {each['against']}: saves {each['saved']['mean']:.3f} nats (95%: {low:.3f} to {high:.3f}), "
                f"answers {each['answers']['mean']:+.3f}, loss {each['loss']['mean']:+.3f}",
                markup=False,
                soft_wrap=True,
            )
        out.console.print(
            f"{made['kept']}: {method} for {made['target_length']} tokens; {read['readings']} readings, "
            f"{read['tokens']:,} tokens, {read['seconds'] / 60:.1f} minutes",
            markup=False,
            soft_wrap=True,
        )
    wanted = ("target_length", "kept", "held_out", "budget", "read")
    out.finish({"profile": str(path), "values": profile.values, **{name: made[name] for name in wanted}})
