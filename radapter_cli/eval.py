"""radapter eval: the merged model and its exported engine on a suite, side by side."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter.runtimes.engines import EXPORTED
from radapter_cli import console
from radapter_cli.model_options import FP32, DeviceChoice, DeviceOption, PrecisionOption

if TYPE_CHECKING:
    from radapter.evaluation.suite import Suite
    from radapter.run import Run


class RuntimeChoice(enum.StrEnum):
    vars().update({name: name for name in ("torch", *EXPORTED, "all")})


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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Instead of a suite: class folders, a table, a caption file or what else "
            "`radapter init` reads; classes are answered among those of the run.",
        ),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="With --data: where a table's or caption file's pictures or videos are.",
        ),
    ] = None,
    runtime: Annotated[
        RuntimeChoice | None,
        typer.Option(
            help="Score only this beside the zero-shot model: torch, the merged model in PyTorch; "
            "one of its exported engines; or all. Default: everything the run has."
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
    broken_images: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="How many pictures of each data set that cannot be read are skipped (and named). "
            "Default: what the suite says.",
        ),
    ] = None,
    no_rerank: Annotated[
        bool,
        typer.Option(
            "--no-rerank",
            help="Captions by cosine alone, where the suite has a model's matching head put the "
            "best answers in order again: that takes a pass of its decoder for each of them.",
        ),
    ] = False,
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
    device: DeviceOption = DeviceChoice.auto,
    precision: PrecisionOption = FP32,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Score zero-shot, merged and exported models on a suite; exit 3 if the engine disagrees.

    [bold]Examples[/]

        radapter eval
        radapter eval --suite emoji-shifts --runtime all
        radapter eval --data photos/test
        radapter eval --alphas 0:1:0.1
        radapter eval --suite emoji-shifts --model pictogram-clip
    """
    if data is not None and suite:
        raise UsageError("--data and --suite both say what to score on: give one of them.")
    if pictures is not None and data is None:
        raise UsageError("--pictures goes with --data.")
    if model is not None:
        if run or alphas or runtime:
            raise UsageError("--model stands alone: leave --run, --runtime and --alphas out.")
        if not suite and data is None:
            raise UsageError("--model needs --suite or --data: `radapter data` lists the suites.")
        with console.status("loading"):
            from radapter.evaluation import adapting, own_data
            from radapter.evaluation.suite import load_suite
            from radapter.inference.opening import classes_and_prompts
            from radapter.models import check_name
        check_name(model)
        chosen = [load_suite(name) for name in suite or ()]
        if data is not None:
            classes, prompts = classes_and_prompts(Path(model))
            own = own_data.suite_of(data, prompts, classes=classes, pictures=pictures)
            chosen = [adapting.with_controls(own)]
        changes = protocol or [], without or [], broken_images, not no_rerank
        suites = adapting.changed(chosen, *changes)
        settings = {"device": device.value, "precision": precision.value}
        return finish(of_models(suites, model, out, no_cache, settings), as_json)
    if out is not None:
        raise UsageError("--out goes with --model: results of a run are kept in the run.")
    from radapter.run import find

    wanted = None if alphas is None else parse_alphas(alphas)
    if wanted and runtime not in (None, "torch"):
        raise UsageError("--alphas scores in PyTorch: leave --runtime out.")
    _check_names(suite or (), protocol or (), without or (), tolerance or ())
    found = find(Path(run) if run else None)
    with console.status("loading"):
        from radapter.evaluation import adapting, of_run
        from radapter.evaluation.cache import user_cache
        from radapter.merging import tuned_name
    more: Any = {"device": device.value, "precision": precision.value}
    more["cache"] = None if no_cache else user_cache()
    suites = adapting.suites_of_run(found, suite or (), data, pictures)
    changes = protocol or [], without or [], broken_images, not no_rerank
    suites = adapting.changed(suites, *changes)
    if wanted:
        with found.lock():
            return finish([over_alphas(found, chosen, wanted, more) for chosen in suites], as_json)
    tuned_name(found)  # an error if there is none
    more |= {"wanted": runtime and runtime.value, "tolerances": tolerance or []}
    results = []
    with found.lock():
        for one in suites:
            with console.progress(one.name) as update:
                more["on_progress"] = lambda name, done, total, show=update: show(done, total, name)
                results.append(of_run.evaluate_run(found, one, **more))
    for result in results:
        for label, scored in result["models"].items():
            if "provider" in scored["provenance"]:
                console.note(f"{label}: run by {scored['provenance']['provider']}")
        for label, why in result["left_out"].items():
            verb = "is left out" if label == "the bundle" else "does not run here"
            console.note(f"{label} {verb}: {why}")
    return finish(results, as_json, found)


def _check_names(
    suites: Sequence[str], protocol: Sequence[str], without: Sequence[str], tolerance: Sequence[str]
) -> None:
    """What is mistyped is said even where there is no run.

    Raises:
        UsageError: no such suite, data set, protocol or tolerance.
    """
    if suites:
        from radapter.evaluation.suite import load_suite

        named = [load_suite(name) for name in suites]
        if protocol or without:
            from radapter.evaluation.adapting import changed

            changed(named, protocol, without)
    if tolerance:
        from radapter.evaluation.parity import tolerance_of

        tolerance_of("fp32", tolerance)


def finish(results: list[dict[str, Any]], as_json: bool, run: Run | None = None) -> None:
    """Print results.

    Raises:
        GateFailed: an engine of the run disagrees with PyTorch.
        BrokenInput: a result, which is printed by now, could not be written.
    """
    from radapter.reporting import alpha_table, evaluation_tables

    for result in () if as_json else results:
        for table in [alpha_table(result)] if "points" in result else evaluation_tables(result):
            console.out.print(table)
        if result["file"]:
            console.result(f"Result: {result['file']}")
        if result.get("picture"):
            console.result(f"Picture: {result['picture']}")
    failed = [
        f"{verdict['label']} on {result['suite']}"
        for result in results
        for verdict in result.get("parity", ())
        if not verdict["passed"]
    ]
    if failed and run:
        raise GateFailed(
            f"The exported bundle does not give PyTorch's answers: {', '.join(failed)}. "
            f"Do not deploy it. Export it again: radapter export --force --run {run.path}",
            details={"results": results},
        )
    if as_json:
        console.print_json({"results": results})
    lost = [result["not_written"] for result in results if result["file"] is None]
    if lost:
        raise BrokenInput(f"The results are right, but were not written: {'; '.join(lost)}.")


def over_alphas(
    run: Run, suite: Suite, alphas: list[float], more: dict[str, Any]
) -> dict[str, Any]:
    """What `of_run.evaluate_alphas` gives, with the path of its picture, if one was drawn."""
    from radapter.evaluation import of_run
    from radapter.reporting import curves

    with console.progress(suite.name) as update:
        result = of_run.evaluate_alphas(
            run,
            suite,
            alphas,
            on_progress=lambda done, total: update(done, total, f"{len(alphas)} alphas"),
            **more,
        )
    picture = None
    if result["file"]:
        picture = curves.draw(result, run.name, Path(result["file"]).with_suffix(".png"))
    return result | {"picture": picture and str(picture)}


def of_models(
    suites: list[Suite], name: str, out: Path | None, no_cache: bool, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Score a model that belongs to no run."""
    with console.status("loading"):
        from radapter.evaluation import of_model
        from radapter.evaluation.cache import user_cache
        from radapter.inference import open_model
    if out is not None and len(suites) > 1:
        raise UsageError("--out is one file: name one suite.")
    opened = [suite.open() for suite in suites]  # data first: it is wrong more often than a model
    model = open_model(name, **settings)
    more: Any = {"out": out, "cache": None if no_cache else user_cache()}
    results = []
    for suite, data in zip(suites, opened, strict=True):
        with console.progress(suite.name) as update:
            more["on_progress"] = lambda done, total, update=update: update(done, total, name)
            results.append(of_model.evaluate_model(suite, name, model, opened=data, **more))
    return results


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
