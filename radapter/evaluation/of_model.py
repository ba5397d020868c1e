"""Evaluate a model that belongs to no run: `NAME:TAG`, a folder in open_clip's format, a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from radapter.evaluation import trivial
from radapter.evaluation.cache import Cache
from radapter.evaluation.evaluate import evaluate, result_of
from radapter.evaluation.intervals import SEED
from radapter.evaluation.result import Evaluation
from radapter.evaluation.suite import Suite
from radapter.evaluation.written import check_writable, write_for_servers, write_result
from radapter.names import slug
from radapter.runtimes.opened import OpenModel

FOLDER = Path("eval")


def evaluate_model(
    suite: Suite,
    name: str,
    model: OpenModel,
    *,
    out: Path | None = None,
    opened: Any = None,
    cache: Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Score one suite, as `evaluate.evaluate` does, and write the result.

    Args:
        name: of the model, as it was asked for.
        model: that model, open.
        out: the result's file; None: `eval/SUITE-MODEL-HASH.json` in the working folder, with the
            first eight digits of the weights' hash.

    Returns:
        What was written, with `file`.
    """
    label = Path(name).resolve().name
    precision = model.runtime.precision
    half = f"-{precision}" if precision in ("fp16", "bf16") else ""
    weights = model.runtime.provenance["weights_hash"]
    path = out or FOLDER / f"{suite.file_name}-{slug(label)}-{weights[:8]}{half}.json"
    check_writable(path)
    how: dict[str, Any] = {"opened": opened, "cache": cache, "keep_features": False}
    evaluated = evaluate(suite, model, on_progress=on_progress, **how)
    own = {"kind": "model", "alpha": None, **evaluated.result(), **with_anchors(evaluated, name)}
    own |= write_for_servers(path, label, evaluated.files())
    models = {label: own}
    for other in trivial.beside(suite, model):
        known = evaluate(suite, other, on_progress=on_progress, **how)
        models[other.name] = {"kind": "trivial", "alpha": None, **known.result()}
    of = {"model": name, "weights_hash": weights, **suite.seen_by(name)}
    result = result_of(suite, model.preprocessing, SEED, of, models=models, parity=[])
    return write_result(path, result)


def with_anchors(evaluated: Evaluation, model: str) -> dict[str, Any]:
    """`anchors`: by data set and metric, published scores of these very weights beside ours, of
    data sets that are whole; nothing for a model without any. Shares from 0 to 1.
    `anchors_elsewhere`: by data set, the protocol under which there are some."""
    found: dict[str, dict[str, Any]] = {}
    for dataset, metric, value, anchors in evaluated.suite.anchors_for(model):
        own = evaluated.sets[dataset]
        if own.is_partial or metric not in own.metrics:
            continue
        found.setdefault(dataset, {})[metric] = {
            "published": value / 100,
            "difference": own.value(metric) - value / 100,
            "tolerance": anchors.tolerance / 100,
            "source": anchors.source,
        }
    elsewhere = evaluated.suite.anchors_elsewhere(model)
    elsewhere = {name: p for name, p in elsewhere.items() if not evaluated.sets[name].is_partial}
    return ({"anchors": found} if found else {}) | (
        {"anchors_elsewhere": elsewhere} if elsewhere else {}
    )
