"""Score a runtime on a suite: features once, then every metric with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from radapter.data import Dataset
from radapter.data.dataset import check_broken, name_skipped
from radapter.data.pairs import templates_of
from radapter.errors import BrokenInput
from radapter.evaluation import cache as caching
from radapter.evaluation import retrieval
from radapter.evaluation.classification import (
    answer_of,
    calibration_error,
    classifier_head,
    encode_texts,
    merge_equal_names,
    predict,
)
from radapter.evaluation.encoding import encode_set
from radapter.evaluation.intervals import mean_interval
from radapter.evaluation.suite import Suite, Task
from radapter.recipe_data import EmojiData
from radapter.runtimes import Runtime

BINS = 15  # of the calibration error, as most papers have it
METRICS = {
    "classification": ["accuracy"],
    "retrieval": [f"{way}_r{k}" for k in (1, 5, 10) for way in ("text_to_image", "image_to_text")],
}


class Prepares(Protocol):
    """What makes a runtime's inputs: `LoadedModel` and `inference.OpenModel` do."""

    @property
    def tokenizer(self) -> Any:
        """list of texts -> token ids [n, length], int64"""

    @property
    def preprocess(self) -> Any:
        """PIL picture -> float tensor [3, height, width]"""

    @property
    def config(self) -> dict[str, Any]:
        """With `preprocess_cfg`"""
        ...

    def shorten(self, tokens: Tensor) -> Tensor:
        """Token ids cut to the longest text, where that changes nothing."""
        ...


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
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By data set: `pictures` that were scored, `broken` ones left out, `classes`, `fingerprint`
    of what was scored, `protocol` and `partial`, how its counts differ from the published ones
    (None if they do not)"""
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

        A partial data set is in no mean of several.
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
        if self.suite.averages:
            averages = self.suite.averages.items()
            result["averages"] = {name: self._mean(members) for name, members in averages}
        return result

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


def protocol(suite: Suite, loaded: Prepares) -> dict[str, Any]:
    """The choices that a number depends on, to stand beside it; those of a data set stand there."""
    templates = templates_of(suite.templates)
    concepts = any(isinstance(dataset.data, EmojiData) for dataset in suite.datasets)
    units = "concepts" if concepts else "pictures"
    return {
        "templates": suite.templates,
        "templates_hash": _hash(templates),
        "head": f"mean of normalized text features, templates: {len(templates)}; normalized",
        "averages": suite.averages,
        "calibration": f"{BINS} bins of equal width, softmax of logit scale times cosine",
        "retrieval": "identical texts are one caption; a tie counts as a miss",
        "interval": f"95 %, percentile bootstrap over {units}",
        "preprocessing": loaded.config["preprocess_cfg"],
    }


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def evaluate(
    suite: Suite,
    runtime: Runtime,
    loaded: Prepares,
    *,
    opened: dict[str, dict[Task, Dataset]] | None = None,
    batch_size: int = 64,
    cache: caching.Cache | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every data set of a suite on every task.

    Args:
        suite: what to score on.
        runtime: what computes the features.
        loaded: the model that the runtime was made from, for its tokenizer and preprocessing.
        opened: what `suite.open()` gave, if it is open already.
        cache: where features are looked for and kept, if the runtime has an `identity`, which has
            to be true of it: weights changed in place have the hash they were loaded with. None:
            nowhere. The result is the same.
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
    texts = _Texts(evaluation, loaded, cache)
    done = 0
    for name, tasks in opened.items():
        chunks: list[Tensor] = []
        broken: dict[str, str] = {}
        items = [(key, *where) for key, where in pictures[name].items()]
        for chunk, failed in encode_set(
            runtime,
            loaded.preprocess,
            loaded.config["preprocess_cfg"],
            items,
            batch_size=batch_size,
            cache=cache,
        ):
            broken |= failed
            check_broken(list(broken.values()), limits[name], f"{name}: data.broken_images")
            chunks += [chunk] if len(chunk) else []
            done += len(chunk) + len(failed)
            on_progress(done, total)
        if not chunks:
            raise BrokenInput(f"{name}: no picture can be read.")
        for message in broken.values():
            name_skipped(message)
        features = torch.cat(chunks)
        row = {key: i for i, key in enumerate(k for k in pictures[name] if k not in broken)}
        tasks = {task: _without(dataset, broken) for task, dataset in tasks.items()}
        evaluation.image_features[name] = features
        facts = _facts(suite, name, next(iter(tasks.values())))
        evaluation.sets[name] = facts | {"pictures": len(features), "broken": len(broken)}
        scored = evaluation.metrics[name] = {}
        for task, dataset in tasks.items():
            own = features[[row[key] for key in dataset.keys]]
            if task == "classification":
                _classify(evaluation, name, dataset, own, texts.head(dataset, suite))
            else:
                evaluation.ranks[name] = _retrieve(scored, dataset, own, texts)
    return evaluation


def _facts(suite: Suite, name: str, dataset: Dataset) -> dict[str, Any]:
    described = next(d for d in suite.datasets if d.name == name)
    protocol = dict(dataset.protocol)
    if dataset.class_names:
        protocol["names_hash"] = _hash(dataset.class_names)
    return {
        "pictures": len(dataset),
        "classes": len(set(dataset.labels)),
        "fingerprint": dataset.fingerprint(),
        "protocol": protocol,
        "partial": described.shortfall(dataset),
    }


def _pictures(tasks: dict[Task, Dataset]) -> dict[str, tuple[Dataset, int]]:
    """Where to read each picture of a set, by its name."""
    pictures: dict[str, tuple[Dataset, int]] = {}
    for dataset in tasks.values():
        for i, key in enumerate(dataset.keys):
            pictures.setdefault(key, (dataset, i))
    return pictures


def _without(dataset: Dataset, broken: dict[str, str]) -> Dataset:
    if not broken:
        return dataset
    return dataset.select([i for i, key in enumerate(dataset.keys) if key not in broken])


class _Texts:
    """Text features, each distinct text encoded once for the whole suite."""

    def __init__(self, evaluation: Evaluation, loaded: Prepares, cache: caching.Cache | None):
        self.evaluation, self.loaded, self.cache = evaluation, loaded, cache
        self.heads: dict[tuple[str, ...], Tensor] = {}

    def head(self, dataset: Dataset, suite: Suite) -> Tensor:
        key = tuple(dataset.class_names)
        if key not in self.heads:
            runtime, tokenizer = self.evaluation.runtime, self.loaded.tokenizer
            templates = templates_of(suite.templates)
            self.heads[key] = caching.kept(
                self.cache,
                self._key(key, templates),
                lambda: classifier_head(
                    runtime, tokenizer, key, templates, shorten=self.loaded.shorten
                ),
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
            features = caching.kept(
                self.cache,
                self._key(new),
                lambda: encode_texts(runtime, tokenizer, new, shorten=self.loaded.shorten),
            )
            known.update({f"caption: {t}": f for t, f in zip(new, features, strict=True)})
        return torch.stack([known[key] for key in keys])

    def _key(self, texts: Sequence[str], templates: Sequence[str] = ()) -> caching.Key | None:
        if self.cache is None:
            return None
        runtime, tokenizer = self.evaluation.runtime, self.loaded.tokenizer
        return caching.texts_key(runtime, tokenizer, texts, templates=templates)


def _classify(
    evaluation: Evaluation, name: str, dataset: Dataset, features: Tensor, head: Tensor
) -> None:
    answer = answer_of(dataset.class_names, dataset.answers)
    predicted, sure = predict(features, head, answer, evaluation.runtime.logit_scale)
    right = predicted == answer[torch.tensor(dataset.labels)]
    evaluation.metrics[name]["accuracy"] = Scored(
        right.numpy(), np.array(dataset.groups), 1 / (int(answer.max()) + 1)
    )
    evaluation.calibration[name] = calibration_error(sure, right, BINS)
    # Two runtimes may break the tie between classes of one name differently: that is agreement.
    first = torch.tensor([int((answer == a).nonzero()[0]) for a in range(int(answer.max()) + 1)])
    evaluation.predictions[name] = merge_equal_names(dataset.class_names)[first[predicted]]


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
