"""radapter eval: the merged model and its exported engine on a suite, side by side."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from radapter.errors import GateFailed, UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.evaluation import Cache
    from radapter.run import Run


class RuntimeChoice(enum.StrEnum):
    torch = "torch"
    onnx = "onnx"
    onnx_cuda = "onnx-cuda"
    onnx_tensorrt = "onnx-tensorrt"
    tensorrt = "tensorrt"
    all = "all"


def complete_suite(incomplete: str) -> list[str]:
    folder = Path(__file__).parents[1] / "radapter" / "evaluation" / "suites"
    return [p.stem for p in sorted(folder.glob("*.yaml")) if p.stem.startswith(incomplete)]


def eval_command(
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="A suite's name or a suite file. Default: the recipe's, else its held-out data.",
            autocompletion=complete_suite,
        ),
    ] = None,
    runtime: Annotated[
        RuntimeChoice | None,
        typer.Option(
            help="Beside the zero-shot model: the merged model in PyTorch, one of its exported "
            "engines, or all and whether they agree. Default: everything the run has."
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRECISION.NAME=VALUE",
            help="What an engine may differ by: int8.cosine=0.98, fp16.agreement=0.99, "
            "fp32.metric=0.002.",
        ),
    ] = None,
    alphas: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO:STEP",
            help="Instead, the curve over alpha from the stored adapter, in PyTorch: 0:1:0.1. "
            "Draws it too, if matplotlib is there.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:TAG|FOLDER|BUNDLE", help="Score this model, which needs no run, instead."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --model: the file of the result. Default: in ./eval."),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET=PROTOCOL",
            help="Score a data set of the suite in another way: objectnet=clip-benchmark.",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET", help="Leave out a data set of the suite, and averages that list it."
        ),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Compute every feature, and keep none. Else those of PyTorch models are kept in "
            "RADAPTER_CACHE (default ~/.cache/radapter), up to RADAPTER_CACHE_GB (8); an "
            "engine's are computed each time.",
        ),
    ] = False,
    run: console.RunOption = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Score zero-shot, merged and exported models on a suite; exit 3 if the engine disagrees.

    [bold]Examples[/]

        radapter eval

        radapter eval --suite emoji-shifts --runtime all

        radapter eval --alphas 0:1:0.1

        radapter eval --suite imagenet-shifts --model ViT-B-16:openai
    """
    if model is not None:
        if run or alphas or runtime:
            raise UsageError("--model stands alone: leave --run, --runtime and --alphas out.")
        if not suite:
            raise UsageError("--model needs --suite: `radapter data` lists the suites.")
        return evaluate_models(suite, protocol or [], without or [], model, out, no_cache, as_json)
    if out is not None:
        raise UsageError("--out goes with --model: results of a run are kept in the run.")
    from radapter.run import find

    wanted = None if alphas is None else parse_alphas(alphas)
    if wanted and runtime not in (None, RuntimeChoice.torch):
        raise UsageError("--alphas scores in PyTorch: leave --runtime out.")
    found = find(Path(run) if run else None)
    recipe = found.recipe()
    names = suite or recipe.suites
    with console.status("loading"):
        from radapter.evaluation import held_out_suite, load_suite, user_cache
    cache = None if no_cache else user_cache()
    suites = [load_suite(name).for_recipe(recipe) for name in names] or [held_out_suite(recipe)]
    suites = changed(suites, protocol or [], without or [])
    if wanted:
        with found.lock(), console.plain_warnings():
            results = [over_alphas(found, chosen, wanted, cache) for chosen in suites]
        if as_json:
            return console.print_json({"results": results})
        from radapter.reporting import alpha_table

        for result in results:
            for part in alpha_table(result):
                console.out.print(part)
            console.result(f"Result: {result['file']}")
            if result["picture"]:
                console.result(f"Picture: {result['picture']}")
        return None
    found.merged()
    with found.lock(), console.plain_warnings():
        results = [
            side_by_side(found, chosen, runtime, tolerance or [], cache) for chosen in suites
        ]
    for result in results:
        for label, scored in result["models"].items():
            if "provider" in scored["provenance"]:
                console.note(f"{label}: served by {scored['provenance']['provider']}")
        for label, why in result["left_out"].items():
            console.note(f"{label} does not run here: {why}")
    if not as_json:
        print_results(results)
    failed = [
        f"{verdict['label']} on {result['suite']}"
        for result in results
        for verdict in result["parity"]
        if not verdict["passed"]
    ]
    if failed:
        raise GateFailed(
            f"What was exported does not give PyTorch's answers: {', '.join(failed)}. Do not "
            f"deploy it. `radapter export --force --run {found.path}` writes it anew.",
            details={"results": results},
        )
    if as_json:
        console.print_json({"results": results})
    return None


def over_alphas(run: Run, suite: Any, alphas: list[float], cache: Cache | None) -> dict[str, Any]:
    """What `scoring.evaluate_alphas` gives, with the path of its picture, if one was drawn."""
    from radapter import scoring
    from radapter.reporting import curves

    with console.progress(suite.name) as update:
        result = scoring.evaluate_alphas(
            run,
            suite,
            alphas,
            cache=cache,
            on_progress=lambda alpha, done, total: update(done, total, f"alpha {alpha:g}"),
        )
    picture = curves.draw(result, run.name, Path(result["file"]).with_suffix(".png"))
    return result | {"picture": picture and str(picture)}


def side_by_side(
    run: Run,
    suite: Any,
    runtime: RuntimeChoice | None,
    tolerances: list[str],
    cache: Cache | None,
) -> dict[str, Any]:
    from radapter import scoring

    with console.progress(suite.name) as update:
        return scoring.evaluate_run(
            run,
            suite,
            cast("scoring.Wanted | None", runtime and runtime.value),
            tolerances=tolerances,
            cache=cache,
            on_progress=lambda model, done, total: update(done, total, model),
        )


def changed(suites: list[Any], protocols: list[str], without: list[str]) -> list[Any]:
    """The suites with `DATASET=PROTOCOL` set and data sets left out, each where it is there."""
    for item in protocols:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--protocol takes DATASET=PROTOCOL, found '{item}'.")
        suites = [s.with_protocol(name, value) if s in _having(suites, name) else s for s in suites]
    for name in without:
        suites = [s.without([name]) if s in _having(suites, name) else s for s in suites]
    return suites


def _having(suites: list[Any], dataset: str) -> list[Any]:
    """The suites with such a data set; if there is none, the first, which then says what it has."""
    having = [suite for suite in suites if suite.called(dataset)]
    return having or suites[:1]


def evaluate_models(
    names: list[str],
    protocols: list[str],
    without: list[str],
    model: str,
    out: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Score a model that belongs to no run."""
    with console.status("loading"):
        from radapter.evaluation import load_suite, standalone, user_cache
        from radapter.inference import open_model
    if out is not None and len(names) > 1:
        raise UsageError("--out is one file: name one suite.")
    suites = changed([load_suite(name) for name in names], protocols, without)
    opened = [suite.open() for suite in suites]  # before any model: it is what is often wrong
    candidate = open_model(model, device="auto")
    cache = None if no_cache else user_cache()
    results = []
    for suite, data in zip(suites, opened, strict=True):
        with console.progress(suite.name) as update, console.plain_warnings():
            results.append(
                standalone.evaluate_model(
                    suite,
                    model,
                    candidate,
                    out=out,
                    opened=data,
                    cache=cache,
                    on_progress=lambda done, total, update=update: update(done, total, model),  # type: ignore[misc]
                )
            )
    if as_json:
        return console.print_json({"results": results})
    return print_results(results)


def print_results(results: list[dict[str, Any]]) -> None:
    from radapter.reporting.tables import evaluation_tables

    for result in results:
        for part in evaluation_tables(result):
            console.out.print(part)
        console.result(f"Result: {result['file']}")


def parse_alphas(text: str) -> list[float]:
    """`0:1:0.1` -> 0, 0.1 ... 1, both ends included."""
    try:
        first, last, step = map(float, text.split(":"))
        count = round((last - first) / step)
    except (ValueError, ZeroDivisionError, OverflowError):
        count = 0
    if not 1 <= count <= 100:
        raise UsageError(f"--alphas takes FROM:TO:STEP, such as 0:1:0.1, found '{text}'.")
    return [round(first + i * step, 6) for i in range(count + 1)]
