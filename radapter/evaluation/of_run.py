"""Score a run on a suite and keep the result in the run: its models side by side, or over alpha."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radapter import bundle, merging
from radapter.errors import BrokenInput, UsageError, command
from radapter.evaluation import seeing, transductive, trivial
from radapter.evaluation.alphas import ALPHAS, alpha_curve
from radapter.evaluation.answers import changed_answers, write_answers
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate, result_of
from radapter.evaluation.of_model import with_anchors
from radapter.evaluation.parity import compare, tolerance_of
from radapter.evaluation.result import Evaluation
from radapter.evaluation.suite import Suite, trained_metric
from radapter.evaluation.written import check_writable, write_for_servers, write_result
from radapter.models import LoadedModel
from radapter.registry import folds
from radapter.run import Run
from radapter.runtimes import Runtime
from radapter.runtimes.engines import open_engine, precisions_of, runnable
from radapter.runtimes.opened import OpenModel, bundle_preprocessing, from_loaded, with_runtime


def evaluate_run(
    run: Run,
    suite: Suite,
    wanted: str | None = None,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    tolerances: Sequence[str] = (),
    cache: Cache | None = None,
    on_progress: Callable[[str, int, int], None] = lambda model, done, total: None,
) -> dict[str, Any]:
    """The zero-shot model, the merged one and its exported engines on a suite; do they agree?

    Args:
        run: locked, as a result is written into it.
        wanted: beside the zero-shot model `torch`, the merged model in PyTorch; an engine's name,
            that engine in every precision that it has; `all` or None, everything the run has and
            this machine can run.
        device: of PyTorch: `cpu`, `cuda`, or `auto`; engines have their own by their names.
        precision: of PyTorch, with `wanted` torch: `fp32`, `fp16` or `bf16`. What engines are
            compared with is fp32.
        tolerances: changes, see `evaluation.parity.tolerance_of`.
        cache: where PyTorch's features are kept, never an engine's; None: nowhere.
        on_progress: called with the model's name, pictures done and pictures in all.

    Returns:
        What was written, with `file`. `parity` has a comparison for each engine, none unless the
        merged model was scored in PyTorch too; `left_out` says what does not run here, and why.

    Raises:
        BrokenInput: data, the merged model or the bundle is missing, stale or damaged.
        MissingDependency: the engine that is wanted does not run here, or no such device.
    """
    if precision != "fp32" and wanted != "torch":
        raise UsageError(
            f"--precision {precision} is for PyTorch alone, and engines are compared with "
            "fp32: add --runtime torch."
        )
    opened = suite.open()  # data first: it is wrong more often than a model
    path = _place(run, suite, wanted, precision)
    check_writable(path)
    merged, facts = merging.tuned(run, sets=True)
    folder, left_out = bundle_folder(run, facts["weights_hash"], wanted)
    base = merging.open_trained(run).base
    alpha = facts["alpha"]
    rule = {"rule": facts["rule"]} if "rule" in facts else {}
    tuned = rule.get("rule", f"alpha {alpha:.2f}")
    candidates = [from_loaded(base, "zero-shot", device, precision)]
    candidates += trivial.beside(suite, candidates[0])
    whole_sets = "transductive" in facts
    if wanted in (None, "torch", "all") and not whole_sets:
        candidates.append(from_loaded(merged, tuned, device, precision))
    if folder is not None:
        everything = wanted is None or wanted == "all"
        names, left_out = runnable(folder) if everything else ([str(wanted)], {})
        candidates += engines(folder, names, merged)
    done: dict[str, Evaluation] = {}
    for model in candidates:
        done[model.name] = evaluate(
            suite,
            model,
            opened=opened,
            cache=cache,
            on_progress=functools.partial(on_progress, model.name),
        )
    if whole_sets:
        done[tuned] = transductive.evaluate(
            run, suite, facts, opened=opened, device=device, precision=precision, cache=cache,
            on_progress=functools.partial(on_progress, tuned),
        )  # fmt: skip
    recipe = run.recipe()
    seen = seeing.said(suite, recipe)
    models = _described(done, tuned, alpha)
    for label, own in done.items():
        models[label] |= write_for_servers(path, label, own.files())
    models["zero-shot"] |= with_anchors(done["zero-shot"], recipe.model)
    result = result_of(
        suite,
        merged.config["preprocess_cfg"],
        recipe.seed,
        {"alpha": alpha, **rule, "weights_hash": facts["weights_hash"], **seen},
        models=models,
        left_out=left_out,
        parity=verdicts(done, tuned, tolerances) if tuned in done else [],
    )
    if tuned in done:
        answers = changed_answers(opened, ("zero-shot", done["zero-shot"]), (tuned, done[tuned]))
        with contextlib.suppress(OSError):  # the result is written next, and says so
            write_answers(path, answers)
    return write_result(path, result | {"schema_version": 2})


def _place(run: Run, suite: Suite, wanted: str | None, precision: str) -> Path:
    """The file of the result. That of one runtime alone must not replace the one that shows that
    all agree."""
    alone = f"-{wanted}" if wanted not in (None, "all") else ""
    alone += f"-{precision}" if precision != "fp32" else ""
    return run.evaluations / f"{suite.file_name}-{merging.tuned_name(run)}{alone}.json"


def _described(
    done: Mapping[str, Evaluation], tuned: str, alpha: float
) -> dict[str, dict[str, Any]]:
    """What was scored, by label: what it is, at which alpha, and its numbers."""
    kinds: dict[str, tuple[str, float | None]] = dict.fromkeys(trivial.KINDS, ("trivial", None))
    kinds |= {"zero-shot": ("zero-shot", 0.0), tuned: ("tuned", alpha)}
    found = {}
    for label, own in done.items():
        kind, at = kinds.get(label, ("engine", alpha))
        found[label] = {"kind": kind, "alpha": at} | own.result()
    return found


def engines(
    folder: Path,
    names: Sequence[str],
    merged: LoadedModel,
    precisions: Sequence[str] | None = None,
) -> list[OpenModel]:
    """A bundle's engines as they are deployed: with the preprocessing that the bundle states.

    Tokens are those of the model's own tokenizer: where the bundle's is known to differ, the
    towers would be blamed for it. Golden texts are what compares tokenizers.

    Returns:
        Each engine in each precision that it has, named for what it is.
    """
    deployed = bundle_preprocessing(folder)
    found = []
    for name in names:
        for precision in precisions or precisions_of(folder, name):
            label = name if precision == "fp32" else f"{name} {precision}"
            runtime = open_engine(folder, name, precision=precision)
            found.append(with_runtime(runtime, merged, name=label, **deployed))
    return found


def verdicts(
    done: Mapping[str, Evaluation], reference: str, tolerances: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Everything that stands after the reference compared with it, each with its `label`."""
    labels = list(done)
    return [
        {"label": label, "files": sorted(done[label].runtime.provenance.get("files", ()))}
        | compare(
            done[reference],
            done[label],
            tolerance_of(_judged_as(done[label].runtime), tolerances),
        )
        for label in labels[labels.index(reference) + 1 :]
    ]


def _judged_as(runtime: Runtime) -> str:
    """The precision whose tolerance counts. TF32 has fp16's digits."""
    return "fp16" if runtime.provenance.get("arithmetic") == "TF32" else runtime.precision


def evaluate_alphas(
    run: Run,
    suite: Suite,
    alphas: Sequence[float] = ALPHAS,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    cache: Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """A suite over alpha, from the stored adapter, in PyTorch: see `alphas.alpha_curve`. Nothing
    is put in order again.

    Args:
        run: locked, as a result is written into it.

    Returns:
        What was written, with `file`: a point for each alpha, and `chosen`, that of the present
        model, if there is one; the adapter is the one that it was made of.

    Raises:
        BrokenInput: data or the adapter is missing or damaged.
    """
    run.trained()
    half = f"-{precision}" if precision != "fp32" else ""
    path = run.evaluations / f"{suite.file_name}-alphas{half}.json"
    check_writable(path)
    suite = suite.without_reranking()
    opened = suite.open()  # data first: it is wrong more often than a model
    trained = merging.open_trained(run)
    points: list[dict[str, Any]] = []
    for alpha, evaluated in alpha_curve(
        suite, trained, alphas, device=device, precision=precision, opened=opened, cache=cache,
        on_progress=on_progress,
    ):  # fmt: skip
        points.append({"alpha": alpha} | evaluated.result())
    recipe = run.recipe()
    chosen: float | None = recipe.alpha
    if folds(recipe.method.name):
        merged = run.merged_facts() if (run.path / "merged" / "current").is_file() else {}
        chosen = None if "rule" in merged else merged.get("alpha")  # a rule's is not on the curve
    of = {
        "trained_metric": trained_metric(recipe),
        "chosen": chosen,
        **({"adapter": "best"} if trained.which == "best" else {}),
        **seeing.said(suite, recipe),
    }
    preprocessing = trained.base.config["preprocess_cfg"]
    return write_result(path, result_of(suite, preprocessing, recipe.seed, of, points=points))


def bundle_folder(
    run: Run, weights_hash: str, wanted: str | None
) -> tuple[Path | None, dict[str, str]]:
    """The bundle of the present merged model, None if only PyTorch is wanted or there is; and what
    is left out with the reason: a bundle of another merged model, where no engine is asked for.

    Raises:
        BrokenInput: a bundle is asked for, and it is missing or of another merged model.
    """
    if wanted == "torch":
        return None, {}
    folder = run.bundle_for(weights_hash)
    if folder.is_dir():
        bundle.verify(folder, weights_hash=weights_hash)
        return folder, {}
    others = [p for p in folder.parent.glob("*") if (p / bundle.MANIFEST).is_file()]
    export = command("export", "--run", run.path)
    if others:
        stale = f"it was made from another merged model than {merging.tuned_name(run)}"
        if wanted is None:
            return None, {"the bundle": f"{stale}. To score it too, type: {export}"}
        raise BrokenInput(f"The bundle of {run.name} is stale: {stale}. Type first: {export}")
    if wanted is not None:
        raise BrokenInput(f"Run {run.name} has no exported bundle. Type first: {export}")
    return None, {}
