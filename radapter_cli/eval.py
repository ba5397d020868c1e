"""radapter eval: the merged model and its exported engine on a suite, side by side."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radapter.errors import BrokenInput, GateFailed
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
    run: console.RunOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Score zero-shot, merged and exported models on a suite; exit 3 if the engine disagrees.

    [bold]Examples[/]

        radapter eval

        radapter eval --suite emoji-shifts --runtime all
    """
    from radapter.run import find

    found = find(Path(run) if run else None)
    recipe = found.recipe()
    names = suite or recipe.suites
    with console.status("loading"):
        from radapter.evaluation import held_out_suite, load_suite
    suites = [load_suite(name).for_recipe(recipe) for name in names] or [held_out_suite(recipe)]
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
