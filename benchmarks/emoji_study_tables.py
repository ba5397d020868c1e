"""The numbers of the built-in study, from the results of its finalists; and their tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from radapter.data import emoji
from radapter.evaluation.intervals import mean_interval

METRICS = {
    "accuracy": "Class accuracy",
    "text_to_image_r1": "Caption to picture, R@1",
    "image_to_text_r1": "Picture to caption, R@1",
}
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
COSTS = {
    "trainable": "trained parameters",
    "stored_bytes": "stored bytes",
    "seconds": "seconds",
    "peak_bytes": "peak memory, bytes",
    "start_share": "share of the average's start",
}
RESAMPLES = 1000
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


Triple = list[float]
"""A value and the ends of its 95 % interval"""


def value(
    results: Results, concepts: Concepts, role: str, metric: str, alpha: float | None = None
) -> Triple:
    """Mean over the data sets of a role, interval over concepts."""
    return _triple(*items(results, concepts, role, metric, alpha))


def difference(
    one: Results,
    two: Results,
    concepts: Concepts,
    role: str,
    metric: str,
    at: tuple[float | None, float | None] = (None, None),
) -> Triple:
    """One minus two: the same items, concepts resampled in pairs. `at`: their alphas, None for
    each run's own."""
    ours, clusters = items(one, concepts, role, metric, at[0])
    theirs, _ = items(two, concepts, role, metric, at[1])
    return _triple([a - b for a, b in zip(ours, theirs, strict=True)], clusters)


def _triple(scores: list[np.ndarray], clusters: list[np.ndarray]) -> Triple:
    mean = float(np.mean([score.mean() for score in scores]))
    return [mean, *mean_interval(scores, clusters)]


# ---------------------------------------------------------------- curves


def above(
    one: Results, two: Results, concepts: Concepts, x: tuple[str, str], y: tuple[str, str]
) -> Triple | None:
    """How far the curve of one lies above that of two, on the mean over equal x.

    At each level of x, from the zero-shot model's to the highest that both reach, y is the most
    that some alpha keeps while x is at least that. x and y are (role, metric). None if a curve
    never gets beyond the zero-shot model. Interval: Poisson bootstrap over concepts.
    """
    generator = np.random.default_rng(0)
    size = 1 + max(
        max(c) for sets in concepts.values() for of in sets.values() for c in of.values()
    )
    weights = generator.poisson(1.0, (RESAMPLES, size))
    weights = np.concatenate([np.ones((1, size)), weights])  # first: the data as they are
    xs, ys = ([_curve(r, concepts, *what, weights) for r in (one, two)] for what in (x, y))
    apart = np.array([_apart(*each) for each in zip(*xs, *ys, strict=True)])
    if np.isnan(apart[0]):
        return None
    # A resample in which a curve never gets beyond the zero-shot model has nothing to compare.
    return [float(apart[0]), *map(float, np.nanquantile(apart[1:], [0.025, 0.975]))]


def _apart(our_x: np.ndarray, their_x: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean height of one curve over the other on their common range of x; NaN if there is none."""
    low, high = our_x[0], min(our_x.max(), their_x.max())
    if high <= low:
        return float("nan")
    levels = np.linspace(low, high, 21)
    return float(np.mean(_kept(our_x, ours, levels) - _kept(their_x, theirs, levels)))


def _curve(
    results: Results, concepts: Concepts, role: str, metric: str, weights: np.ndarray
) -> np.ndarray:
    """[resamples, alphas]: the mean over the data sets of a role, by weighted concepts."""
    columns = []
    for alpha in alphas(results):
        means = []
        for scores, clusters in zip(*items(results, concepts, role, metric, alpha), strict=True):
            sums = np.bincount(clusters, scores, minlength=weights.shape[1])
            counts = np.bincount(clusters, minlength=weights.shape[1])
            means.append((weights @ sums) / (weights @ counts))
        columns.append(np.mean(means, axis=0))
    return np.stack(columns, axis=1)


def _kept(x: np.ndarray, y: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """At each level of x the highest y with at least that x, alphas in between interpolated."""
    at, between = np.arange(len(x)), np.linspace(0, len(x) - 1, 20 * (len(x) - 1) + 1)
    x, y = np.interp(between, at, x), np.interp(between, at, y)
    reached = np.minimum(levels, x.max())  # rounding apart, every level is reached
    return np.where(x >= reached[:, None], y, -np.inf).max(axis=1)


def alphas(results: Results) -> list[float]:
    """Where every run of a method was scored."""
    return sorted(map(float, set.intersection(*(set(r["test"]["noto"]) for r in results))))


def moved(
    results: Results, zero_shot: Results, concepts: Concepts, role: str, metric: str, alpha: float
) -> dict[str, tuple[float, float]]:
    """By subgroup: how many items the zero-shot model hits and the tuned one misses, and the other
    way round. The subgroups that lose most come first."""
    names = [concept["subgroup"] for concept in emoji.concepts()]
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    ours, clusters = items(results, concepts, role, metric, alpha)
    theirs, _ = items(zero_shot, concepts, role, metric, 0.0)
    for after, before, of_items in zip(ours, theirs, clusters, strict=True):
        for change, concept in zip(after - before, of_items, strict=True):
            found[names[concept]][int(change > 0)] += abs(change)
    order = sorted(found, key=lambda name: found[name][1] - found[name][0])
    return {name: (found[name][0], found[name][1]) for name in order}


def show_moved(
    found: dict[str, Results], concepts: Concepts, role: str, metric: str, alpha: float = 1.0
) -> None:
    """Print what was lost and gained, and the subgroups at both ends, for each method."""
    print(f"\n### {METRICS[metric]}, {role}: items lost and gained at alpha {alpha:g}\n")
    print("| | lost | gained | most lost (lost, gained) | most gained |\n|---|---|---|---|---|")
    for name, results in found.items():
        if alpha in alphas(results):
            of = moved(results, found["zero-shot"], concepts, role, metric, alpha)
            ends = [
                ", ".join(f"{group} ({of[group][0]:.0f}, {of[group][1]:.0f})" for group in some)
                for some in (list(of)[:4], list(of)[:-4:-1])
            ]
            lost, gained = (sum(pair[i] for pair in of.values()) for i in (0, 1))
            print(f"| {name} | {lost:.0f} | {gained:.0f} | {ends[0]} | {ends[1]} |")


# ---------------------------------------------------------------- the summary and its tables


def summarize(found: dict[str, Results], concepts: Concepts, trained: str) -> dict[str, Any]:
    """Every finalist's scores, curve, cost and distance from the reference, as plain data.

    `trained` is the metric of the trained task; the curves are compared over it, on noto.
    """
    pairs = [(role, metric) for metric in ("accuracy", "text_to_image_r1") for role in ROLES]

    def table(cell: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
        return {m: {role: cell(role, m) for role in ROLES} for m in METRICS}

    summary: dict[str, Any] = {}
    two = found[REFERENCE]
    for name, results in found.items():
        has_curve = len(alphas(results)) > 1
        summary[name] = {
            "alphas": [result["alpha"] for result in results],
            "cost": {key: _mean(results, key) for key in COSTS},
            "chosen": table(lambda role, m: value(results, concepts, role, m)),  # noqa: B023
            "curve": [
                {"alpha": alpha}
                | table(
                    lambda role, m: _triple(*items(results, concepts, role, m, alpha))[0]  # noqa: B023
                )
                for alpha in alphas(results)
            ],
            "difference": None
            if name == REFERENCE
            else table(lambda role, m: difference(results, two, concepts, role, m)),  # noqa: B023
            "above": {
                f"{role} {metric}": above(results, two, concepts, ("noto", trained), (role, metric))
                for role, metric in pairs
                if (role, metric) != ("noto", trained)
            }
            if has_curve and name != REFERENCE
            else None,
        }
        if has_curve:
            summary[name]["at_one"] = table(
                lambda role, m: value(results, concepts, role, m, 1.0)  # noqa: B023
            )
    return summary


def show(summary: dict[str, Any]) -> None:
    """Print the summary as Markdown."""
    print(
        "In %, with 95 % intervals over concepts. The last three columns are the difference from "
        f"`{REFERENCE}`, each at its own alpha."
    )
    for metric, title in METRICS.items():
        columns = [*ROLES, *(f"{role}, diff." for role in ROLES)]
        print(f"\n### {title}\n\n| | alpha | {' | '.join(columns)} |\n|---|---|{'---|' * 6}")
        for name, method in summary.items():
            for key in ("chosen", "at_one"):
                if key not in method:
                    continue
                alpha = "1" if key == "at_one" else f"{np.mean(method['alphas']):.2f}"
                apart = method["difference"] if key == "chosen" else None
                cells = [percent(method[key][metric][role]) for role in ROLES]
                cells += [percent(apart[metric][r], "+") if apart else "" for r in ROLES]
                print(f"| {name} | {alpha} | {' | '.join(cells)} |")
    print(f"\n### Cost\n\n| | {' | '.join(COSTS.values())} |\n|---|{'---|' * len(COSTS)}")
    for name, method in summary.items():
        cells = ["–" if v is None else f"{v:,.3g}" for v in method["cost"].values()]
        print(f"| {name} | {' | '.join(cells)} |")
    compared = list(next(m["above"] for m in summary.values() if m["above"]))
    print(f"\n### Curve over alpha above that of `{REFERENCE}`, at equal score on noto\n")
    print(f"| | {' | '.join(compared)} |\n|---|{'---|' * len(compared)}")
    for name, method in summary.items():
        if method["above"]:
            cells = [percent(method["above"][key], "+") for key in compared]
            print(f"| {name} | {' | '.join(cells)} |")


def show_effects(found: dict[str, Results], concepts: Concepts) -> None:
    """Print what tuning, re-scaling and each part of R-Adapter do, as paired differences."""
    curves = {name: results for name, results in found.items() if len(alphas(results)) > 1}
    zero = found["zero-shot"]
    rows = [(f"{n}, alpha 1 - zero-shot", r, zero, (1.0, 0.0)) for n, r in curves.items()]
    rows += [(f"{n}, chosen alpha - alpha 1", r, r, (None, 1.0)) for n, r in curves.items()]
    rows += [
        (f"r-adapter - {name}, both at alpha 1", found["r-adapter"], results, (1.0, 1.0))
        for name, results in curves.items()
        if name.startswith("r-adapter with")
    ]
    rows += [
        (f"{name} - {name.split(' + ')[0]}, {title}", results, found[name.split(" + ")[0]], at)
        for name, results in curves.items()
        if " + " in name
        for title, at in (("both at alpha 1", (1.0, 1.0)), ("at the chosen alphas", (None, None)))
    ]
    rows += [
        (f"r-adapter - lora, {title}", found["r-adapter"], found["lora"], at)
        for title, at in (("both at alpha 1", (1.0, 1.0)), ("at the chosen alphas", (None, None)))
        if "lora" in found
    ]
    columns = [(m, role) for m in ("accuracy", "text_to_image_r1") for role in ROLES]
    header = " | ".join(f"{METRICS[metric]}, {role}" for metric, role in columns)
    print(f"\n### What tuning, re-scaling and the parts do\n\n| | {header} |\n|---|{'---|' * 6}")
    for title, one, two, at in rows:
        cells = [percent(difference(one, two, concepts, r, m, at), "+") for m, r in columns]
        print(f"| {title} | {' | '.join(cells)} |")


def percent(triple: Triple | None, sign: str = "") -> str:
    """`12.3 [10.1, 14.5]`"""
    if triple is None:
        return "–"
    value, low, high = (f"{100 * x:{sign}.1f}" for x in triple)
    return f"{value} [{low}, {high}]"


def _mean(results: Results, key: str) -> float | None:
    values = [result[key] for result in results]
    return None if None in values else float(np.mean(values))
