"""Does an exported engine give the answers of the merged PyTorch model? A table and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from radapter.errors import BrokenInput
from radapter.evaluation.result import Evaluation


@dataclass(frozen=True)
class Tolerance:
    """What may differ. The metric tolerance is the larger of `metric` and one item."""

    cosine: float
    agreement: float
    metric: float


TOLERANCES = {
    "fp32": Tolerance(cosine=0.99999, agreement=0.999, metric=0.001),
    "fp16": Tolerance(cosine=0.9999, agreement=0.995, metric=0.002),
    "int8": Tolerance(cosine=0.99, agreement=0.97, metric=0.01),
    "int8-qdq": Tolerance(cosine=0.99, agreement=0.97, metric=0.01),
}


def compare(reference: Evaluation, engine: Evaluation) -> dict[str, Any]:
    """The engine's features, predictions and metrics against the reference's, same suite.

    Returns:
        `cosine` (worst and mean, pictures and texts, with the worst input's name), `agreement`
        (share of equal top-1 predictions, classes of one name counted as one), `metrics` (each
        with both values and the difference), `tolerance`, `failures` (one line each) and `passed`.
    """
    tolerance = TOLERANCES.get(engine.runtime.precision)
    if tolerance is None:
        raise BrokenInput(
            f"The bundle says that its precision is '{engine.runtime.precision}', for which there "
            "is no tolerance. Export it again."
        )
    failures = []

    cosines: dict[str, float] = {}
    for name, features in reference.image_features.items():
        for i, value in enumerate(_cosine(features, engine.image_features[name])):
            cosines[f"{name} picture {i}"] = value
    names = list(reference.text_features)
    values = _cosine(
        torch.stack([reference.text_features[name] for name in names]),
        torch.stack([engine.text_features[name] for name in names]),
    )
    cosines |= {f"text: {name}": value for name, value in zip(names, values, strict=True)}
    worst = min(cosines, key=lambda name: cosines[name])
    # `not >=` so that NaN fails.
    if not cosines[worst] >= tolerance.cosine:
        failures.append(
            f"worst cosine {cosines[worst]:.6f} ({worst}), allowed {tolerance.cosine:.6f}"
        )

    agreement = None
    if reference.predictions:
        equal = torch.cat(
            [reference.predictions[n] == engine.predictions[n] for n in reference.predictions]
        )
        agreement = float(equal.double().mean())
        if not agreement >= tolerance.agreement:
            failures.append(f"top-1 agreement {agreement:.2%}, allowed {tolerance.agreement:.2%}")

    metrics = []
    for dataset, scored in reference.metrics.items():
        for metric, item in scored.items():
            ours, theirs = reference.value(dataset, metric), engine.value(dataset, metric)
            allowed = max(tolerance.metric, 1 / len(item.scores)) + 1e-9
            row = {
                "dataset": dataset,
                "metric": metric,
                "reference": ours,
                "engine": theirs,
                "difference": theirs - ours,
            }
            metrics.append(row)
            if not abs(theirs - ours) <= allowed:
                failures.append(f"{dataset} {metric} differs by {100 * (theirs - ours):+.2f}")
    return {
        "reference": reference.runtime.name,
        "engine": engine.runtime.name,
        "precision": engine.runtime.precision,
        "cosine": {
            "worst": cosines[worst],
            "worst_input": worst,
            "mean": sum(cosines.values()) / len(cosines),
        },
        "agreement": agreement,
        "metrics": metrics,
        "tolerance": vars(tolerance),
        "failures": failures,
        "passed": not failures,
    }


def _cosine(ours: torch.Tensor, theirs: torch.Tensor) -> list[float]:
    """Row-wise cosine in float64: fp32 rounding would hide what is looked for."""
    pair = torch.nn.functional.cosine_similarity(ours.double(), theirs.double(), dim=-1)
    return pair.tolist()
