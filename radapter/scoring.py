"""Score a run on a suite and keep the result in the run: its models side by side, or over alpha."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from radapter import bundle, merging
from radapter.errors import BrokenInput
from radapter.evaluation import Cache, Evaluation, Suite, compare, evaluate
from radapter.evaluation.evaluate import protocol
from radapter.evaluation.standalone import with_anchors
from radapter.evaluation.versions import versions
from radapter.run import Run, write_atomic
from radapter.runtimes.onnx import OnnxRuntime
from radapter.runtimes.pytorch import PyTorchRuntime

Wanted = Literal["torch", "onnx", "all"]


def evaluate_run(
    run: Run,
    suite: Suite,
    wanted: Wanted | None = None,
    *,
    cache: Cache | None = None,
    on_progress: Callable[[str, int, int], None] = lambda model, done, total: None,
) -> dict[str, Any]:
    """The zero-shot model, the merged one and its exported engine on a suite; do they agree?

    Args:
        run: locked, as a result is written into it.
        suite: what to score on.
        wanted: beside the zero-shot model `torch`, the merged model in PyTorch; `onnx`, its
            exported engine; `all`, both; None, everything the run has.
        cache: where PyTorch's features are kept, never an engine's; None: nowhere.
        on_progress: called with the model's name, pictures done and pictures in all.

    Returns:
        What was written, with `file`. `parity` is None unless both were scored.

    Raises:
        BrokenInput: data, the merged model or the bundle is missing, stale or damaged.
    """
    opened = suite.open()  # before any model: it is what is often wrong
    merged, facts = merging.read_merged(run)
    folder = bundle_folder(run, facts["weights_hash"], wanted)
    base = merging.open_trained(run).base
    tuned = f"alpha {facts['alpha']:.2f}"
    candidates: list[tuple[str, Any, Any]] = [("zero-shot", PyTorchRuntime(base), base)]
    if wanted != "onnx":
        candidates.append((tuned, PyTorchRuntime(merged), merged))
    if folder is not None:
        candidates.append(("onnx", OnnxRuntime(folder), merged))
    done: dict[str, Evaluation] = {}
    for label, engine, model in candidates:
        report = functools.partial(on_progress, label)
        done[label] = evaluate(suite, engine, model, opened=opened, cache=cache, on_progress=report)
    both = tuned in done and "onnx" in done
    parity = compare(done[tuned], done["onnx"]) if both else None
    # A look at one runtime alone must not take the place of the evidence that both agree.
    alone = f"-{wanted}" if wanted in ("torch", "onnx") else ""
    recipe = run.recipe()
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "alpha": facts["alpha"],
        "weights_hash": facts["weights_hash"],
        "seed": recipe.seed,
        "versions": versions(),
        "protocol": protocol(suite, merged),
        "models": {
            label: evaluated.result()
            | (with_anchors(evaluated, recipe.model) if label == "zero-shot" else {})
            for label, evaluated in done.items()
        },
        "parity": parity,
    }
    return _written(run.evaluations / f"{suite.name}-{run.merged().name}{alone}.json", result)


def evaluate_alphas(
    run: Run,
    suite: Suite,
    alphas: Sequence[float] = merging.ALPHAS,
    *,
    cache: Cache | None = None,
    on_progress: Callable[[float, int, int], None] = lambda alpha, done, total: None,
) -> dict[str, Any]:
    """A suite over alpha, from the stored adapter, in PyTorch.

    Args:
        run: locked, as a result is written into it.
        cache: where features are kept; None: nowhere.
        on_progress: called with an alpha that is done, how many are, and how many there are.

    Returns:
        What was written, with `file`: a point for each alpha, and `chosen`, that of the present
        merged model, if there is one.

    Raises:
        BrokenInput: data or the adapter is missing or damaged.
    """
    run.trained()
    opened = suite.open()  # before any model: it is what is often wrong
    trained = merging.open_trained(run)
    merged = (run.path / "merged" / "current").is_file()
    points: list[dict[str, Any]] = []
    for alpha, evaluated in merging.alpha_curve(suite, trained, alphas, opened=opened, cache=cache):
        points.append({"alpha": alpha} | evaluated.result())
        on_progress(alpha, len(points), len(alphas))
    recipe = run.recipe()
    result = {
        "schema_version": 1,
        "suite": suite.name,
        "trained_metric": merging.trained_metric(recipe),
        "chosen": merging.read_merged(run)[1]["alpha"] if merged else None,
        "seed": recipe.seed,
        "versions": versions(),
        "protocol": protocol(suite, trained.base),
        "points": points,
    }
    return _written(run.evaluations / f"{suite.name}-alphas.json", result)


def _written(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    write_atomic(path, json.dumps(result, indent=2, default=list) + "\n")
    return result | {"file": str(path)}


def bundle_folder(run: Run, weights_hash: str, wanted: Wanted | None) -> Path | None:
    """The bundle of the present merged model, None if only PyTorch is wanted or there is.

    Raises:
        BrokenInput: a bundle is asked for or there, and it is missing or of another merged model.
    """
    if wanted == "torch":
        return None
    folder = run.bundle_for(weights_hash)
    if folder.is_dir():
        bundle.verify(folder, weights_hash=weights_hash)
        return folder
    others = [p for p in folder.parent.glob("*") if (p / bundle.MANIFEST).is_file()]
    if others:
        raise BrokenInput(
            f"The bundle of {run.name} is stale: it was made from another merged model than "
            f"{run.merged().name}. Type first: radapter export --run {run.path}"
        )
    if wanted is not None:
        raise BrokenInput(
            f"Run {run.name} has no exported bundle. Type first: radapter export --run {run.path}"
        )
    return None
