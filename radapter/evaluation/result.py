"""What scoring gives: features and a score for every item, and what is reported of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from radapter.evaluation.intervals import harmonic, mean_interval
from radapter.evaluation.scores import Scored, Task, metric_of
from radapter.evaluation.shown import Firsts, Maps
from radapter.evaluation.suite import Suite
from radapter.runtimes import Runtime


class TextKey(NamedTuple):
    """What a text feature is of: a caption, a class with the templates of its prompts, or a text in
    the query of a picture, which is named in the place of templates."""

    kind: Literal["caption", "class", "query"]
    text: str
    templates: tuple[str, ...] = ()


@dataclass
class SetResult:
    """Features and scores of one runtime on one data set."""

    pictures: list[str]
    """The names of those that were scored"""
    facts: dict[str, Any]
    """`pictures` that were scored, `broken` ones left out, `classes`, `captions`, how many of these
    another picture has in the same tokens (`shared_captions`), `fingerprint` of what was scored,
    `protocol` and `partial`, how its counts differ from the published ones (None if they do not),
    what was passed over (`left_out`, by reason) and `remarks`: sentences without their full stop
    that say what makes a number say less than it seems to"""
    image_features: Tensor | None = None
    """[pictures, dim], where they are kept"""
    metrics: dict[str, Scored] = field(default_factory=dict)
    predictions: Tensor | None = None
    """Of a classification, classes with identical names counted as one, [pictures]"""
    further: dict[str, Any] = field(default_factory=dict)
    """What is reported beside the metrics: numbers without an interval"""
    files: dict[str, Any] = field(default_factory=dict)
    """What is written for the server of a benchmark, JSON by the name of the file"""
    shown: dict[Task, Firsts | Maps] = field(default_factory=dict)
    """What reports show of it, by task"""

    def value(self, metric: str) -> float:
        return float(self.metrics[metric].scores.mean())

    @property
    def is_partial(self) -> bool:
        return bool(self.facts["partial"])


@dataclass
class Evaluation:
    """Features and scores of one runtime on one suite."""

    suite: Suite
    runtime: Runtime
    sets: dict[str, SetResult] = field(default_factory=dict)
    """By data set"""
    text_features: dict[TextKey, Tensor] = field(default_factory=dict)
    """[dim]; of a class, its row in the head of the classifier"""

    def result(self) -> dict[str, Any]:
        """Everything that is reported, as plain data: shares from 0 to 1, 95 % intervals.

        A partial data set is in no mean of several; a named average, which says over which sets it
        is, has no value unless all of them are whole.
        """
        datasets: dict[str, Any] = {}
        for dataset in self.suite.datasets:
            own = self.sets[dataset.name]
            metrics = {metric: _summary([item]) for metric, item in own.metrics.items()}
            facts = {"role": dataset.role, **own.facts}
            datasets[dataset.name] = facts | metrics | own.further
        roles: dict[str, Any] = {}
        for role in self.suite.roles():
            names = [d.name for d in self.suite.datasets if d.role == role]
            means = self._mean(names)
            if not means["datasets"] and len(names) > 1:
                continue
            roles[role] = means if means["datasets"] else self._mean(names, partial=True)
            for metric in [name for name in self.sets[names[0]].metrics if name in roles[role]]:
                values = {name: self.sets[name].value(metric) for name in roles[role]["datasets"]}
                least_good = max if metric_of(metric).better == "smaller" else min
                worst = least_good(values, key=lambda name: values[name])
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

    def files(self) -> dict[str, dict[str, Any]]:
        """By data set what is written for its server, by the name of the file."""
        return {name: own.files for name, own in self.sets.items()}

    def _harmonic(self, *of: str) -> dict[str, Any]:
        """The harmonic mean of the accuracies of two data sets or averages, if all is whole."""
        first, second = (self.suite.members(part) for part in of)
        if any(self.sets[name].is_partial for name in first + second):
            return {"of": list(of)}
        scored = [self.sets[name].metrics["accuracy"] for name in first + second]
        sets = [s.scores for s in scored], [s.clusters for s in scored]
        return {"of": list(of), "accuracy": harmonic(*sets, len(first))}

    def _named(self, names: list[str]) -> dict[str, Any]:
        """Every metric's mean over all of these data sets; if one is partial, only which are."""
        means = self._mean(names)
        if "left_out" in means:
            return {"datasets": means["datasets"], "left_out": means["left_out"]}
        return means

    def _mean(self, names: list[str], partial: bool = False) -> dict[str, Any]:
        """The means over the data sets that are whole of metrics that all of these have; what they
        are, what is not."""
        used = [name for name in names if partial or not self.sets[name].is_partial]
        left_out = [name for name in names if name not in used]
        means = {
            metric: _summary([self.sets[name].metrics[metric] for name in used])
            for metric in (self.sets[used[0]].metrics if used else ())
            if all(metric in self.sets[name].metrics for name in used)
        }
        return {"datasets": used, **({"left_out": left_out} if left_out else {}), **means}


def _summary(scored: list[Scored]) -> dict[str, Any]:
    common = [name for name in scored[0].trivial if all(name in s.trivial for s in scored)]
    trivial = {name: float(np.mean([s.trivial[name] for s in scored])) for name in common}
    return {
        "value": float(np.mean([s.scores.mean() for s in scored])),
        "interval": mean_interval([s.scores for s in scored], [s.clusters for s in scored]),
        "items": int(sum(len(s.scores) for s in scored)),
        "chance": float(np.mean([s.chance for s in scored])),
        **({"trivial": trivial} if trivial else {}),
    }
