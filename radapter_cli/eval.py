"""radapter eval: the merged model and its exported engine on a suite, side by side."""

from __future__ import annotations

import enum
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import BrokenInput, GateFailed, UsageError
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.run import Run


class RuntimeChoice(enum.StrEnum):
    torch = "torch"
    onnx = "onnx"
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
            help="Beside the zero-shot model: the merged model in PyTorch, its exported engine, or "
            "both and whether they agree. Default: everything the run has."
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
    run: console.RunOption = None,
    data_root: console.DataRootOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Score zero-shot, merged and exported models on a suite; exit 3 if the engine disagrees.

    [bold]Examples[/]

        radapter eval

        radapter eval --suite emoji-shifts --runtime all

        radapter eval --alphas 0:1:0.1
    """
    from radapter.run import find

    wanted = None if alphas is None else parse_alphas(alphas)
    if wanted and runtime not in (None, RuntimeChoice.torch):
        raise UsageError("--alphas scores in PyTorch: leave --runtime out.")
    found = find(Path(run) if run else None)
    recipe = found.recipe()
    names = suite or recipe.suites
    with console.status("loading"):
        from radapter.evaluation import held_out_suite, load_suite
    suites = [load_suite(name).for_recipe(recipe) for name in names] or [held_out_suite(recipe)]
    if wanted:
        with found.lock():
            results = [evaluate_alphas(found, chosen, wanted) for chosen in suites]
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
    with found.lock():
        results = [evaluate_suite(found, chosen, runtime) for chosen in suites]
    if not as_json:
        from radapter.reporting.tables import evaluation_tables

        for result in results:
            for part in evaluation_tables(result):
                console.out.print(part)
            console.result(f"Result: {result['file']}")
    failed = [r["suite"] for r in results if r["parity"] and not r["parity"]["passed"]]
    if failed:
        raise GateFailed(
            f"The exported engine does not give PyTorch's answers on {', '.join(failed)}: do not "
            f"deploy it. `radapter export --force --run {found.path}` writes it anew.",
            details={"results": results},
        )
    if as_json:
        console.print_json({"results": results})
    return None


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


def evaluate_alphas(found: Run, suite: Any, alphas: list[float]) -> dict[str, Any]:
    """Score one suite at every alpha; write the result, and its picture, into the (locked) run."""
    from radapter import merging
    from radapter.evaluation.evaluate import protocol
    from radapter.reporting import curves, plots
    from radapter.run import write_atomic

    trained = merging.open_trained(found)
    merged = (found.path / "merged" / "current").is_file()
    points = []
    with console.progress(suite.name) as update:
        for alpha, evaluated in merging.alpha_curve(suite, trained, alphas):
            points.append({"alpha": alpha} | evaluated.result())
            update(len(points), len(alphas), f"alpha {alpha:g}")
    path = found.evaluations / f"{suite.name}-alphas.json"
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "trained_metric": merging.trained_metric(found.recipe()),
        "chosen": merging.read_merged(found)[1]["alpha"] if merged else None,
        "protocol": protocol(suite, trained.base),
        "points": points,
    }
    write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    x, panels = curves.axes(result)
    picture = None
    if panels and importlib.util.find_spec("matplotlib"):
        picture = path.with_suffix(".png")
        labels = [curves.axis_label(axis, result) for axis in (x, *panels)]
        plots.trade_off([curves.curve(result, found.name)], labels[0], labels[1:], picture)
    return result | {"file": str(path), "picture": picture and str(picture)}


def evaluate_suite(found: Run, suite: Any, runtime: RuntimeChoice | None) -> dict[str, Any]:
    """Evaluate one suite on what is asked for and write the result into the (locked) run."""
    from radapter import evaluation, merging
    from radapter.evaluation.evaluate import protocol
    from radapter.run import write_atomic
    from radapter.runtimes.pytorch import PyTorchRuntime

    opened = suite.open()  # before any model: it is what is often wrong
    merged, facts = merging.read_merged(found)
    folder = bundle_folder(found, facts["weights_hash"], runtime)
    base = merging.open_trained(found).base
    tuned = f"alpha {facts['alpha']:.2f}"
    candidates: list[tuple[str, Any, Any]] = [("zero-shot", PyTorchRuntime(base), base)]
    if runtime is not RuntimeChoice.onnx:
        candidates.append((tuned, PyTorchRuntime(merged), merged))
    if folder is not None:
        from radapter.runtimes.onnx import OnnxRuntime

        candidates.append(("onnx", OnnxRuntime(folder), merged))
    done: dict[str, evaluation.Evaluation] = {}
    with console.progress(f"{suite.name}") as update:
        for label, engine, model in candidates:
            report = functools.partial(_report, update, label)
            done[label] = evaluation.evaluate(
                suite, engine, model, opened=opened, on_progress=report
            )
    both = tuned in done and "onnx" in done
    parity = evaluation.compare(done[tuned], done["onnx"]) if both else None
    # A look at one runtime alone must not take the place of the evidence that both agree.
    alone = f"-{runtime}" if runtime in (RuntimeChoice.torch, RuntimeChoice.onnx) else ""
    path = found.evaluations / f"{suite.name}-{found.merged().name}{alone}.json"
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "alpha": facts["alpha"],
        "weights_hash": facts["weights_hash"],
        "protocol": protocol(suite, merged),
        "models": {label: evaluated.result() for label, evaluated in done.items()},
        "parity": parity,
    }
    write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    return result | {"file": str(path)}


def _report(update: Callable[[int, int, str], None], label: str, done: int, total: int) -> None:
    update(done, total, label)


def bundle_folder(found: Run, weights_hash: str, runtime: RuntimeChoice | None) -> Path | None:
    """The bundle of the present merged model, None if only PyTorch is wanted or there is.

    Raises:
        BrokenInput: a bundle is asked for or there, and it is missing or of another merged model.
    """
    from radapter import bundle

    if runtime is RuntimeChoice.torch:
        return None
    folder = found.bundle_for(weights_hash)
    if folder.is_dir():
        bundle.verify(folder, weights_hash=weights_hash)
        return folder
    others = [p for p in folder.parent.glob("*") if (p / bundle.MANIFEST).is_file()]
    if others:
        raise BrokenInput(
            f"The bundle of {found.name} is stale: it was made from another merged model than "
            f"{found.merged().name}. Type first: radapter export --run {found.path}"
        )
    if runtime is not None:
        raise BrokenInput(
            f"Run {found.name} has no exported bundle. "
            f"Type first: radapter export --run {found.path}"
        )
    return None
