"""Does an exported engine give the answers of the merged PyTorch model? A table and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from radapter import bundle
from radapter.data.pairs import templates_of
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.dense import lacks_patches
from radapter.evaluation.intervals import mean_interval
from radapter.evaluation.result import Evaluation, SetResult, TextKey
from radapter.evaluation.suite import Suite
from radapter.evaluation.tasks import segmentation
from radapter.evaluation.tasks.retrieval import RERANKED


@dataclass(frozen=True)
class Tolerance:
    """What may differ."""

    cosine: float
    """The worst input's, at least"""
    agreement: float
    """Share of equal top-1 predictions, at least"""
    metric: float
    """The difference of a metric, at most, as far as it is sure: one whose 95 % interval holds 0
    passes, since on a small sample a few near ties that tip over are no evidence."""


TOLERANCES = {
    "fp32": Tolerance(cosine=0.99999, agreement=0.999, metric=0.001),
    "fp16": Tolerance(cosine=0.9999, agreement=0.995, metric=0.002),
    "int8": Tolerance(cosine=0.99, agreement=0.97, metric=0.01),
    "int8-qdq": Tolerance(cosine=0.99, agreement=0.95, metric=0.01),
}

WORST = 5  # inputs that are named
NORM = 1e-5
SCALE = 1e-5  # of the logit scale, relative


def tolerance_of(precision: str, changes: Sequence[str] = ()) -> Tolerance:
    """The tolerance of a precision, with `PRECISION.NAME=VALUE` changes for it.

    Raises:
        BrokenInput: there is no such precision.
        UsageError: a change is for no tolerance that there is.
    """
    if precision not in TOLERANCES:
        raise BrokenInput(
            f"The bundle says that its precision is '{precision}', for which there is no "
            f"tolerance. {bundle.AGAIN}"
        )
    values = vars(TOLERANCES[precision]).copy()
    for change in changes:
        key, _, text = change.partition("=")
        of, _, name = key.rpartition(".")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if of not in TOLERANCES or name not in values or not 0 <= value <= 1:
            raise UsageError(
                f"--tolerance takes PRECISION.NAME=VALUE with a precision of "
                f"{', '.join(TOLERANCES)}, a name of {', '.join(values)} and a value from 0 to 1, "
                f"such as int8.metric=0.02, not '{change}'."
            )
        if of == precision:
            values[name] = value
    return Tolerance(**values)


def compare(
    reference: Evaluation, engine: Evaluation, tolerance: Tolerance | None = None
) -> dict[str, Any]:
    """The engine's features, predictions and metrics against the reference's, same suite.

    Args:
        reference: of the merged model in PyTorch, fp32.
        engine: of what is compared with it.
        tolerance: default: that of the engine's precision.

    Returns:
        `cosine` (worst and mean over pictures and texts, and the five worst inputs by name),
        `norm` (the largest difference from 1), `agreement` (share of equal top-1 predictions,
        classes of one name counted as one), `metrics` (each with both values, the difference and
        its 95 % interval, bootstrap over the same items; last, those of several sets as their
        mean), `tolerance`, `failures` (one line each) and `passed`. An engine without a file for
        queries or for patches is not compared in what needs it, and none in re-ranked captions,
        which are PyTorch's.

    Raises:
        KeyError: the engine lacks anything else that the reference has.
    """
    precision = engine.runtime.precision
    tolerance = tolerance or tolerance_of(precision)
    failures = []

    cosines, norm = _inputs(reference, engine)
    # NaN first: it is the worst there is, and sorts nowhere.
    worst = sorted(cosines, key=lambda name: (not math.isnan(cosines[name]), cosines[name]))[:WORST]
    # `not >=` so that NaN fails.
    if not cosines[worst[0]] >= tolerance.cosine:
        failures.append(
            f"worst cosine {cosines[worst[0]]:.6f} ({worst[0]}), allowed {tolerance.cosine:.6f}"
        )
    if not norm <= NORM:
        failures.append(f"a norm is off by {norm:.1e}, allowed {NORM:.0e}")

    scale = engine.runtime.logit_scale / reference.runtime.logit_scale - 1
    if not abs(scale) <= SCALE:
        failures.append(f"the logit scale is off by {scale:+.1e}, allowed {SCALE:.0e}")

    agreement = None
    equal = [
        ours.predictions == theirs.predictions
        for ours, theirs in _both(reference, engine)
        if ours.predictions is not None and theirs.predictions is not None
    ]
    if equal:
        agreement = float(torch.cat(equal).double().mean())
        if not agreement >= tolerance.agreement:
            failures.append(f"top-1 agreement {agreement:.2%}, allowed {tolerance.agreement:.2%}")

    metrics = _metrics(reference, engine)
    for row in metrics:
        low, high = row["interval"]
        if not (abs(row["difference"]) <= tolerance.metric or low <= 0 <= high):
            failures.append(
                f"{row['dataset']} {row['metric']} differs by {100 * row['difference']:+.2f} "
                f"[{100 * low:+.2f}, {100 * high:+.2f}], allowed {100 * tolerance.metric:.1f}"
            )
    return {
        "reference": f"{reference.runtime.name} {reference.runtime.precision}",
        "engine": f"{engine.runtime.name} {precision}",
        "precision": precision,
        "cosine": {
            "worst": cosines[worst[0]],
            "mean": sum(cosines.values()) / len(cosines),
            "worst_inputs": [[name, cosines[name]] for name in worst],
        },
        "norm": norm,
        "agreement": agreement,
        "metrics": metrics,
        "tolerance": vars(tolerance),
        "failures": failures,
        "passed": not failures,
    }


def _metrics(reference: Evaluation, engine: Evaluation) -> list[dict[str, Any]]:
    """A row for each metric of each data set, then one for its mean over the sets that have it."""
    changes: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {}
    for dataset, ours in reference.sets.items():
        for metric, item in ours.metrics.items():
            if _cannot(engine, dataset, metric):
                continue
            theirs = engine.sets[dataset].metrics[metric]
            changed = theirs.scores.astype(float) - item.scores
            changes.setdefault(metric, []).append((dataset, changed, item.clusters))
    rows = []
    for metric, found in changes.items():
        rows += [_row(reference, engine, metric, [change]) for change in found]
    rows += [
        _row(reference, engine, metric, found) for metric, found in changes.items() if found[1:]
    ]
    return rows


def _row(
    reference: Evaluation,
    engine: Evaluation,
    metric: str,
    changes: Sequence[tuple[str, np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    names, changed, clusters = zip(*changes, strict=True)
    ours, theirs = (
        sum(evaluation.sets[name].value(metric) for name in names) / len(names)
        for evaluation in (reference, engine)
    )
    return {
        "dataset": names[0] if len(names) == 1 else f"mean of {len(names)}",
        "metric": metric,
        "reference": ours,
        "engine": theirs,
        "difference": theirs - ours,
        "interval": mean_interval(changed, clusters),
    }


def _inputs(reference: Evaluation, engine: Evaluation) -> tuple[dict[str, float], float]:
    """The cosine of every picture's and text's features, by name; the largest error of a norm."""
    cosines: dict[str, float] = {}
    pairs = [
        (ours.image_features, theirs.image_features, [f"{name} {p}" for p in ours.pictures])
        for name, (ours, theirs) in zip(reference.sets, _both(reference, engine), strict=True)
    ]
    lacks = _lacks_queries(engine)
    texts = [key for key in reference.text_features if not (key.kind == "query" and lacks)]
    if texts:
        features = [
            torch.stack([evaluation.text_features[key] for key in texts])
            for evaluation in (reference, engine)
        ]
        pairs.append((features[0], features[1], [_named(key, reference.suite) for key in texts]))
    norm = 0.0
    for ours, theirs, names in pairs:
        assert ours is not None
        assert theirs is not None
        # In float64: fp32 rounding would hide what is looked for.
        cosine = torch.nn.functional.cosine_similarity(ours.double(), theirs.double(), dim=-1)
        cosines |= dict(zip(names, cosine.tolist(), strict=True))
        # Of captions and pictures; a head is a mean that is normalized again.
        off = (theirs.double().norm(dim=-1) - 1).abs().max().item()
        norm = off if math.isnan(off) else max(norm, off)
    return cosines, norm


def _cannot(engine: Evaluation, dataset: str, metric: str) -> bool:
    """Whether an engine has no such metric of a data set."""
    (described,) = (d for d in engine.suite.datasets if d.name == dataset)
    if metric in segmentation.METRICS and lacks_patches(engine.runtime, described.dense):
        return True
    if metric.startswith("query_"):
        return _lacks_queries(engine)
    return RERANKED in metric and not getattr(engine.runtime, "matches", False)


def _lacks_queries(engine: Evaluation) -> bool:
    """Whether it has no file for queries of a picture and a text, which a model may make."""
    return not getattr(engine.runtime, "makes_queries", False)


def _both(reference: Evaluation, engine: Evaluation) -> list[tuple[SetResult, SetResult]]:
    return [(ours, engine.sets[name]) for name, ours in reference.sets.items()]


def _named(key: TextKey, suite: Suite) -> str:
    """A text for people: a class with a template where that is not the suite's."""
    of = f" of '{key.templates[0]}'" if key.templates else ""
    if list(key.templates) == templates_of(suite.templates):
        of = ""
    return f"{key.kind}{of}: {key.text}"
