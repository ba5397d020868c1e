"""What scoring gives: features and a score for every item, and what is reported of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from radapter.evaluation.intervals import harmonic, mean_interval
from radapter.evaluation.published import RETRIEVAL
from radapter.evaluation.suite import Suite
from radapter.runtimes import Runtime

BINS = 15  # of the calibration error, as most papers have it


@dataclass
class Scored:
    """One metric on one data set: a score for every item."""

    scores: np.ndarray
    """[items], 1 for a hit and 0 for a miss"""
    clusters: np.ndarray
    """[items], the concept or picture that the item belongs to"""
    chance: float


@dataclass
class Evaluation:
    """Features and scores of one runtime on one suite."""

    suite: Suite
    runtime: Runtime
    metrics: dict[str, dict[str, Scored]] = field(default_factory=dict)
    """metrics[data set][metric]"""
    pictures: dict[str, list[str]] = field(default_factory=dict)
    """By data set, the names of those that were scored"""
    image_features: dict[str, Tensor] = field(default_factory=dict)
    """By data set, [pictures, dim]"""
    text_features: dict[str, Tensor] = field(default_factory=dict)
    """By "caption: TEXT" and, for the heads of classifiers, "class: NAME", [dim]"""
    predictions: dict[str, Tensor] = field(default_factory=dict)
    """By data set, classes with identical names counted as one, [pictures]"""
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By data set: `pictures` that were scored, `broken` ones left out, `classes`, `captions`, how
    many of these another picture has in the same tokens (`shared_captions`), `fingerprint`
    of what was scored, `protocol` and `partial`, how its counts differ from the published ones
    (None if they do not), what was passed over (`left_out`, by reason) and `remarks`: sentences
    without their full stop that say what makes a number say less than it seems to"""
    calibration: dict[str, float] = field(default_factory=dict)
    """Expected calibration error by data set, from 0 to 1"""
    ranks: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By data set and way of retrieval, the best rank of a right target, from 0, [queries]"""

    def value(self, dataset: str, metric: str) -> float:
        return float(self.metrics[dataset][metric].scores.mean())

    def is_partial(self, dataset: str) -> bool:
        return bool(self.sets[dataset]["partial"])

    def result(self) -> dict[str, Any]:
        """Everything that is reported, as plain data: shares from 0 to 1, 95 % intervals.

        A partial data set is in no mean of several; a named average, which says over which sets it
        is, has no value unless all of them are whole.
        """
        datasets: dict[str, Any] = {}
        for dataset in self.suite.datasets:
            scored = self.metrics[dataset.name]
            own = {metric: _summary([item]) for metric, item in scored.items()}
            if dataset.name in self.calibration:
                own["calibration_error"] = {"value": self.calibration[dataset.name], "bins": BINS}
            datasets[dataset.name] = {"role": dataset.role, **self.sets[dataset.name], **own}
            if dataset.name in self.ranks:
                datasets[dataset.name]["retrieval"] = self._retrieval(dataset.name)
        roles: dict[str, Any] = {}
        for role in self.suite.roles():
            names = [d.name for d in self.suite.datasets if d.role == role]
            means = self._mean(names)
            if not means["datasets"] and len(names) > 1:
                continue
            roles[role] = means if means["datasets"] else self._mean(names, partial=True)
            for metric in self.metrics[names[0]]:
                values = {name: self.value(name, metric) for name in roles[role]["datasets"]}
                worst = min(values, key=lambda name: values[name])
                roles[role][metric] |= {"worst": values[worst], "worst_dataset": worst}
        result = {
            "runtime": self.runtime.name,
            "device": self.runtime.device,
            "precision": self.runtime.precision,
            "provenance": self.runtime.provenance,
            "roles": roles,
            "datasets": datasets,
        }
        if averages := self.suite.averages:
            result["averages"] = {n: self._named(self.suite.members(n)) for n in averages}
        if self.suite.harmonic_means:
            pairs = self.suite.harmonic_means.items()
            result["harmonic_means"] = {name: self._harmonic(*pair) for name, pair in pairs}
        return result

    def _harmonic(self, *of: str) -> dict[str, Any]:
        """The harmonic mean of the accuracies of two data sets or averages, if all is whole."""
        first, second = (self.suite.members(part) for part in of)
        if any(map(self.is_partial, first + second)):
            return {"of": list(of)}
        scored = [self.metrics[name]["accuracy"] for name in first + second]
        sets = [s.scores for s in scored], [s.clusters for s in scored]
        return {"of": list(of), "accuracy": harmonic(*sets, len(first))}

    def _named(self, names: list[str]) -> dict[str, Any]:
        """Every metric's mean over all of these data sets; if one is partial, only which are."""
        means = self._mean(names)
        if "left_out" in means:
            return {"datasets": means["datasets"], "left_out": means["left_out"]}
        return means

    def _mean(self, names: list[str], partial: bool = False) -> dict[str, Any]:
        """Every metric's mean over the data sets that are whole; what they are, what is not."""
        used = [name for name in names if partial or not self.is_partial(name)]
        left_out = [name for name in names if name not in used]
        means = {
            metric: _summary([self.metrics[name][metric] for name in used])
            for metric in (self.metrics[used[0]] if used else ())
        }
        return {"datasets": used, **({"left_out": left_out} if left_out else {}), **means}

    def _retrieval(self, dataset: str) -> dict[str, float]:
        """What papers report of retrieval beside the recalls: their sum, in %, of R@1, R@5 and R@10
        both ways, and median ranks, from 1, a half rounded down, as VSE++ has it."""
        ranks = self.ranks[dataset]
        recalls = sum(self.value(dataset, metric) for metric in RETRIEVAL)
        medians = {f"{w}_median_rank": 1 + int(np.median(r.numpy())) for w, r in ranks.items()}
        return {"recall_sum": 100 * recalls} | medians


def _summary(scored: list[Scored]) -> dict[str, Any]:
    return {
        "value": float(np.mean([s.scores.mean() for s in scored])),
        "interval": mean_interval([s.scores for s in scored], [s.clusters for s in scored]),
        "items": int(sum(len(s.scores) for s in scored)),
        "chance": float(np.mean([s.chance for s in scored])),
    }
