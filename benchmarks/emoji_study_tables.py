"""The tables of the built-in study, from the results of its finalists."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from radapter.evaluation.intervals import mean_interval

METRICS = ("accuracy", "text_to_image_r1", "image_to_text_r1")
ROLES = {
    "noto": ["noto"],
    "unseen": ["emojione", "emojione-monotone"],
    "seen": [
        "twemoji",
        "fluent-emoji",
        "fluent-emoji-flat",
        "fluent-emoji-high-contrast",
        "noto-v1",
    ],
}
REFERENCE = "full"
Results = list[dict[str, Any]]
"""Of one finalist, one for each fold and seed"""
Concepts = dict[int, dict[str, dict[str, list[int]]]]
"""By fold, data set and metric: the concept of each item"""


def items(
    results: Results, concepts: Concepts, role: str, metric: str, alpha: float | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """By data set of a role: the share of seeds that hit each item, and the item's concept.

    Seeds of one fold test on the same items, so they are averaged and no fold counts more for
    having more of them. Folds have different concepts and stand beside each other. `alpha` None:
    each run's own. The interval over them is about concepts, given these trained models.
    """
    scores, clusters = [], []
    for name in ROLES[role]:
        hits: dict[int, list[np.ndarray]] = defaultdict(list)
        for result in results:
            at = str(result["alpha"] if alpha is None else alpha)
            kept = result["test"][name][at][metric]
            hits[result["fold"]].append(np.array([float(hit) for hit in kept]))
        scores.append(np.concatenate([np.mean(hits[fold], axis=0) for fold in sorted(hits)]))
        of_items = [np.array(concepts[fold][name][metric]) for fold in sorted(hits)]
        clusters.append(np.concatenate(of_items))
    return scores, clusters


def cell(
    results: Results, concepts: Concepts, role: str, metric: str, alpha: float | None = None
) -> str:
    scores, clusters = items(results, concepts, role, metric, alpha)
    return _with_interval(scores, clusters, "{:.1f}")


def difference(one: Results, two: Results, concepts: Concepts, role: str, metric: str) -> str:
    """One minus two, each at its own alpha: the same items, concepts resampled in pairs."""
    ours, clusters = items(one, concepts, role, metric)
    theirs, _ = items(two, concepts, role, metric)
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    return _with_interval(apart, clusters, "{:+.1f}")


def _with_interval(scores: list[np.ndarray], clusters: list[np.ndarray], form: str) -> str:
    mean = np.mean([score.mean() for score in scores])
    value, low, high = (form.format(100 * x) for x in (mean, *mean_interval(scores, clusters)))
    return f"{value} [{low}, {high}]"


def show(found: dict[str, Results], concepts: Concepts) -> None:
    """Print what every finalist scores, costs, and how far it is from the reference."""
    columns = [(role, metric) for metric in METRICS for role in ROLES]
    header = " | ".join(f"{metric} {role}" for role, metric in columns)
    print("In %, with 95 % intervals over concepts.\n")
    print(f"| | alpha | {header} |\n|---|---|" + "---|" * len(columns))
    for name, results in found.items():
        for alpha in (None, 1.0):
            if alpha and str(alpha) not in results[0]["test"]["noto"]:
                continue
            mean = alpha or np.mean([result["alpha"] for result in results])
            cells = [cell(results, concepts, role, metric, alpha) for role, metric in columns]
            print(f"| {name} | {mean:.2f} | " + " | ".join(cells) + " |")
    print("\n| | trained parameters | stored, MB | seconds | peak memory, MB |")
    print("|---|---|---|---|---|")
    for name, results in found.items():
        cells = [
            _mean(results, "trainable", 1),
            _mean(results, "stored_bytes", 1e6),
            _mean(results, "seconds", 1),
            _mean(results, "peak_bytes", 1e6),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nDifferences from `{REFERENCE}`, each at its own alpha:\n")
    print(f"| | {header} |\n|---|" + "---|" * len(columns))
    for name, results in found.items():
        if name != REFERENCE:
            two = found[REFERENCE]
            cells = [difference(results, two, concepts, role, m) for role, m in columns]
            print(f"| {name} | " + " | ".join(cells) + " |")


def _mean(results: Results, key: str, unit: float) -> str:
    values = [result[key] for result in results]
    return "–" if None in values else f"{np.mean(values) / unit:,.1f}"
