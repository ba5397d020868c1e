"""Score a runtime on a suite: features once, then every metric with its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radapter.data import Dataset
from radapter.data.dataset import check_broken, name_skipped
from radapter.data.pairs import templates_of
from radapter.errors import BrokenInput
from radapter.evaluation import retrieval
from radapter.evaluation.classification import (
    classifier_head,
    encode_texts,
    merge_equal_names,
    predict,
)
from radapter.evaluation.intervals import mean_interval
from radapter.evaluation.suite import Suite, Task
from radapter.models import LoadedModel, shorten
from radapter.runtimes import Runtime

METRICS = {
    "classification": ["accuracy"],
    "retrieval": [f"{way}_r{k}" for k in (1, 5, 10) for way in ("text_to_image", "image_to_text")],
}


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
    image_features: dict[str, Tensor] = field(default_factory=dict)
    """By data set, [pictures, dim]"""
    text_features: dict[str, Tensor] = field(default_factory=dict)
    """By "caption: TEXT" and, for the heads of classifiers, "class: NAME", [dim]"""
    predictions: dict[str, Tensor] = field(default_factory=dict)
    """By data set, classes with identical names counted as one, [pictures]"""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """By data set, of what was scored: without its broken pictures"""
    broken: dict[str, int] = field(default_factory=dict)
    """By data set, how many pictures could not be read and were left out"""
    ranks: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By data set and way of retrieval, the best rank of a right target, from 0, [queries]"""

    def value(self, dataset: str, metric: str) -> float:
        return float(self.metrics[dataset][metric].scores.mean())

    def result(self) -> dict[str, Any]:
        """Everything that is reported, as plain data: shares from 0 to 1, 95 % intervals."""
        datasets: dict[str, Any] = {}
        for dataset in self.suite.datasets:
            scored = self.metrics[dataset.name]
            datasets[dataset.name] = {
                "role": dataset.role,
                "pictures": len(self.image_features[dataset.name]),
                "broken": self.broken[dataset.name],
                "fingerprint": self.fingerprints[dataset.name],
            } | {metric: _summary([item]) for metric, item in scored.items()}
            if dataset.name in self.ranks:
                datasets[dataset.name]["retrieval"] = self._retrieval(dataset.name)
        roles: dict[str, Any] = {}
        for role in self.suite.roles():
            names = [d.name for d in self.suite.datasets if d.role == role]
            roles[role] = {"datasets": names}
            for metric in self.metrics[names[0]]:
                values = {name: self.value(name, metric) for name in names}
                worst = min(values, key=lambda name: values[name])
                roles[role][metric] = _summary([self.metrics[name][metric] for name in names]) | {
                    "worst": values[worst],
                    "worst_dataset": worst,
                }
        return {
            "runtime": self.runtime.name,
            "device": self.runtime.device,
            "precision": self.runtime.precision,
            "provenance": self.runtime.provenance,
            "roles": roles,
            "datasets": datasets,
        }

    def _retrieval(self, dataset: str) -> dict[str, float]:
        """What papers report of retrieval beside the recalls: their sum, in %, of R@1, R@5 and R@10
        both ways, and median ranks, from 1."""
        ranks = self.ranks[dataset]
        recalls = sum(self.value(dataset, metric) for metric in METRICS["retrieval"])
        medians = {f"{way}_median_rank": 1 + float(r.median()) for way, r in ranks.items()}
        return {"recall_sum": 100 * recalls} | medians


def _summary(scored: list[Scored]) -> dict[str, Any]:
    return {
        "value": float(np.mean([s.scores.mean() for s in scored])),
        "interval": mean_interval([s.scores for s in scored], [s.clusters for s in scored]),
        "items": int(sum(len(s.scores) for s in scored)),
        "chance": float(np.mean([s.chance for s in scored])),
    }


def protocol(suite: Suite, loaded: LoadedModel) -> dict[str, Any]:
    """The choices that a number depends on, to stand beside it."""
    return {
        "templates": suite.templates,
        "head": "mean of normalized text features over templates, normalized",
        "retrieval": "identical texts are one caption; a tie counts as a miss",
        "interval": "95 %, percentile bootstrap over concepts",
        "preprocessing": loaded.config["preprocess_cfg"],
    }


def evaluate(
    suite: Suite,
    runtime: Runtime,
    loaded: LoadedModel,
    *,
    opened: dict[str, dict[Task, Dataset]] | None = None,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every data set of a suite on every task.

    Args:
        suite: what to score on.
        runtime: what computes the features.
        loaded: the model that the runtime was made from, for its tokenizer and preprocessing.
        opened: what `suite.open()` gave, if it is open already.
        on_progress: called with pictures done and pictures in all.

    Pictures that cannot be read are named on stderr and left out, with their labels and texts, up
    to the data set's own `broken_images`.

    Raises:
        BrokenInput: a data set is missing, or more of its pictures cannot be read (the first few
            are named).
    """
    opened = opened or suite.open()
    limits = {dataset.name: dataset.data.broken_images for dataset in suite.datasets}
    # A set may hold more pictures for one task than for another: each is encoded once.
    pictures = {name: _pictures(tasks) for name, tasks in opened.items()}
    total = sum(map(len, pictures.values()))
    evaluation = Evaluation(suite, runtime)
    texts = _Texts(evaluation, loaded)
    done = 0
    for name, tasks in opened.items():
        chunks: list[Tensor] = []
        broken: dict[str, str] = {}
        items = list(pictures[name].items())
        for start in range(0, len(items), batch_size):
            chosen = items[start : start + batch_size]
            batch = _read_batch(chosen, loaded, broken)
            check_broken(list(broken.values()), limits[name], f"{name}: data.broken_images")
            if batch:
                chunks.append(runtime.encode_image(torch.stack(batch)))
            done += len(chosen)
            on_progress(done, total)
        if not chunks:
            raise BrokenInput(f"{name}: no picture can be read.")
        for message in broken.values():
            name_skipped(message)
        features = torch.cat(chunks)
        row = {key: i for i, key in enumerate(k for k in pictures[name] if k not in broken)}
        tasks = {task: _without(dataset, broken) for task, dataset in tasks.items()}
        evaluation.image_features[name] = features
        evaluation.broken[name] = len(broken)
        evaluation.fingerprints[name] = next(iter(tasks.values())).fingerprint()
        scored = evaluation.metrics[name] = {}
        for task, dataset in tasks.items():
            own = features[[row[key] for key in dataset.keys]]
            if task == "classification":
                predicted = _classify(scored, dataset, own, texts.head(dataset, suite))
                evaluation.predictions[name] = predicted
            else:
                evaluation.ranks[name] = _retrieve(scored, dataset, own, texts)
    return evaluation


def _pictures(tasks: dict[Task, Dataset]) -> dict[str, tuple[Dataset, int]]:
    """Where to read each picture of a set, by its name."""
    pictures: dict[str, tuple[Dataset, int]] = {}
    for dataset in tasks.values():
        for i, key in enumerate(dataset.keys):
            pictures.setdefault(key, (dataset, i))
    return pictures


def _read_batch(
    items: list[tuple[str, tuple[Dataset, int]]], loaded: LoadedModel, broken: dict[str, str]
) -> list[Tensor]:
    """Pictures ready for the model; those that cannot be read go into `broken` instead."""
    batch = []
    for key, (dataset, index) in items:
        try:
            batch.append(loaded.preprocess(dataset.read(index)))
        except BrokenInput as error:
            broken[key] = str(error)
    return batch


def _without(dataset: Dataset, broken: dict[str, str]) -> Dataset:
    if not broken:
        return dataset
    return dataset.select([i for i, key in enumerate(dataset.keys) if key not in broken])


class _Texts:
    """Text features, each distinct text encoded once for the whole suite."""

    def __init__(self, evaluation: Evaluation, loaded: LoadedModel):
        self.evaluation, self.loaded = evaluation, loaded
        self.heads: dict[tuple[str, ...], Tensor] = {}

    def _shorten(self, tokens: Tensor) -> Tensor:
        return shorten(self.loaded.model, tokens)

    def head(self, dataset: Dataset, suite: Suite) -> Tensor:
        key = tuple(dataset.class_names)
        if key not in self.heads:
            self.heads[key] = classifier_head(
                self.evaluation.runtime,
                self.loaded.tokenizer,
                dataset.class_names,
                templates_of(suite.templates),
                shorten=self._shorten,
            )
            names = {f"class: {n}": f for n, f in zip(key, self.heads[key], strict=True)}
            self.evaluation.text_features.update(names)
        return self.heads[key]

    def captions(self, texts: list[str]) -> Tensor:
        known = self.evaluation.text_features
        keys = [f"caption: {text}" for text in texts]
        new = [text for key, text in zip(keys, texts, strict=True) if key not in known]
        if new:
            runtime, tokenizer = self.evaluation.runtime, self.loaded.tokenizer
            features = encode_texts(runtime, tokenizer, new, shorten=self._shorten)
            known.update({f"caption: {t}": f for t, f in zip(new, features, strict=True)})
        return torch.stack([known[key] for key in keys])


def _classify(
    scored: dict[str, Scored], dataset: Dataset, features: Tensor, head: Tensor
) -> Tensor:
    predicted = predict(features, head)
    same = merge_equal_names(dataset.class_names)
    right = same[predicted] == same[torch.tensor(dataset.labels)]
    scored["accuracy"] = Scored(
        right.numpy(), np.array(dataset.groups), 1 / len(set(dataset.class_names))
    )
    return same[predicted]


def _retrieve(
    scored: dict[str, Scored], dataset: Dataset, features: Tensor, texts: _Texts
) -> dict[str, Tensor]:
    captions, pictures_of, captions_of = retrieval.caption_positives(dataset.captions)
    text_features = texts.captions(captions)
    groups = np.array(dataset.groups)
    first_group = groups[[right[0] for right in pictures_of]]
    found = {}
    for way, queries, targets, positives, clusters in (
        ("text_to_image", text_features, features, pictures_of, first_group),
        ("image_to_text", features, text_features, captions_of, groups),
    ):
        ranks = found[way] = retrieval.best_ranks(queries, targets, positives)
        odds = retrieval.chance(positives, len(targets))
        for k in (1, 5, 10):
            hits = (ranks < k).numpy()
            scored[f"{way}_r{k}"] = Scored(hits, clusters, min(1.0, odds * k))
    return found
