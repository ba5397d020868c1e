"""Scoring a run for `radapter eval`: over alphas, or its models and engine side by side."""

from __future__ import annotations

import enum
import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radapter.errors import BrokenInput
from radapter_cli import console

if TYPE_CHECKING:
    from radapter.run import Run


class RuntimeChoice(enum.StrEnum):
    torch = "torch"
    onnx = "onnx"
    onnx_cuda = "onnx-cuda"
    onnx_tensorrt = "onnx-tensorrt"
    tensorrt = "tensorrt"
    all = "all"


def evaluate_alphas(found: Run, suite: Any, alphas: list[float]) -> dict[str, Any]:
    """Score one suite at every alpha; write the result, and its picture, into the (locked) run."""
    from radapter import merging
    from radapter.evaluation.evaluate import protocol
    from radapter.evaluation.standalone import versions
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
        "seed": found.recipe().seed,
        "versions": versions(),
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
    from radapter.evaluation.standalone import versions, with_anchors
    from radapter.run import write_atomic
    from radapter.runtimes.pytorch import PyTorchRuntime

    opened = suite.open()  # before any model: it is what is often wrong
    merged, facts = merging.read_merged(found)
    folder = bundle_folder(found, facts["weights_hash"], runtime)
    base = merging.open_trained(found).base
    tuned = f"alpha {facts['alpha']:.2f}"
    candidates: list[tuple[str, Any, Any]] = [("zero-shot", PyTorchRuntime(base), base)]
    if runtime in (None, RuntimeChoice.torch, RuntimeChoice.all):
        candidates.append((tuned, PyTorchRuntime(merged), merged))
    if folder is not None:
        from radapter.runtimes.opening import open_engine, runnable

        names: list[Any]
        names, unfit = runnable(folder)
        for name, why in unfit.items() if runtime is RuntimeChoice.all else ():
            console.note(f"{name} is not scored: {why}")
        if runtime not in (None, RuntimeChoice.all):
            names = [runtime.value]
        for name in names:
            opened_engine = open_engine(folder, name)
            console.note(f"{name}: served by {opened_engine.provenance['provider']}")
            candidates.append((name, opened_engine, merged))
    done: dict[str, evaluation.Evaluation] = {}
    with console.progress(f"{suite.name}") as update:
        for label, engine, model in candidates:
            report = functools.partial(_report, update, label)
            done[label] = evaluation.evaluate(
                suite, engine, model, opened=opened, on_progress=report
            )
    engines = [label for label in done if label not in ("zero-shot", tuned)]
    parities = {
        label: evaluation.compare(done[tuned], done[label]) for label in engines if tuned in done
    }
    failed = [parity for parity in parities.values() if not parity["passed"]]
    parity = next(iter([*failed, *parities.values()]), None)
    # A look at one runtime alone must not take the place of the evidence that both agree.
    alone = f"-{runtime}" if runtime not in (None, RuntimeChoice.all) else ""
    path = found.evaluations / f"{suite.name}-{found.merged().name}{alone}.json"
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "alpha": facts["alpha"],
        "weights_hash": facts["weights_hash"],
        "seed": found.recipe().seed,
        "versions": versions(),
        "protocol": protocol(suite, merged),
        "models": {
            label: evaluated.result()
            | (with_anchors(evaluated, found.recipe().model) if label == "zero-shot" else {})
            for label, evaluated in done.items()
        },
        "parity": parity,  # the first engine that fails, else the first
        "parities": parities,
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
