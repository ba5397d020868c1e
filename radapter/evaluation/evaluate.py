"""Score a runtime on a suite: features once, then every metric with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from radapter import distributed
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
from radapter.evaluation.result import BINS, Evaluation, Scored
from radapter.evaluation.suite import Suite, Task
from radapter.names import to_bytes
from radapter.recipe_data import EmojiData
from radapter.runtimes import Runtime

EQUAL_CAPTIONS = {
    "one": "texts of the same tokens are one caption",
    "apart": "no prefix; texts of the same tokens are captions of their own, each right for its "
    "own picture",
}
EQUAL_CLASSES = {
    "one": "one answer",
    "apart": "each class counts for itself; of equal scores the first class",
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


def protocol(suite: Suite, loaded: Prepares) -> dict[str, Any]:
    """The choices that a number depends on, to stand beside it; those of a data set stand there."""
    templates = templates_of(suite.templates)
    own = {d.name: own for d in suite.datasets if (own := d.own_prompts()) is not None}
    counts = sorted({len(templates_of(suite.prompts(d))) for d in suite.datasets})
    concepts = any(isinstance(dataset.data, EmojiData) for dataset in suite.datasets)
    units = "concepts" if concepts else "pictures"
    return {
        "templates": suite.templates,
        "templates_hash": _hash(templates),
        **({"dataset_templates": own} if own else {}),
        "head": "mean of normalized text features, templates: "
        f"{' or '.join(map(str, counts))}; normalized",
        "averages": suite.averages,
        **({"harmonic_means": suite.harmonic_means} if suite.harmonic_means else {}),
        "calibration": f"{BINS} bins of equal width, softmax of logit scale times cosine",
        "retrieval": f"{EQUAL_CAPTIONS[suite.identical_captions]}; a tie counts as a miss",
        "interval": f"95 %, percentile bootstrap over {units}",
        "preprocessing": loaded.config["preprocess_cfg"],
    }


def _hash(texts: list[str]) -> str:
    return hashlib.sha256(to_bytes("\n".join(texts))).hexdigest()


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

    Several ranks (see `radapter.distributed`) share the encoding; each has the whole result.

    Pictures that cannot be read are named on stderr and left out, with their labels and texts, up
    to the data set's own `broken_images`.

    Raises:
        BrokenInput: a data set is missing, or more of its pictures cannot be read (the first few
            are named).
    """
    if distributed.ranks() > 1:
        cache = None  # one rank may have there what another has to encode together with the others
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
        for message in broken.values() if distributed.leads() else ():
            name_skipped(message)
        features = torch.cat(chunks)
        row = {key: i for i, key in enumerate(k for k in pictures[name] if k not in broken)}
        tasks = {task: _without(dataset, broken) for task, dataset in tasks.items()}
        evaluation.pictures[name], evaluation.image_features[name] = list(row), features
        facts = _facts(suite, name, next(iter(tasks.values())))
        evaluation.sets[name] = facts | {"pictures": len(features), "broken": len(broken)}
        scored = evaluation.metrics[name] = {}
        for task, dataset in tasks.items():
            own = features[[row[key] for key in dataset.keys]]
            if task == "classification":
                described = next(d for d in suite.datasets if d.name == name)
                head = texts.head(dataset, templates_of(suite.prompts(described)))
                apart = described.data.identical_classes == "apart"
                clusters = _clusters(suite, name, dataset)
                _classify(evaluation, name, dataset, own, head, clusters, apart)
            else:
                apart = suite.identical_captions == "apart"
                groups = _clusters(suite, name, dataset)
                evaluation.ranks[name] = _retrieve(scored, dataset, own, texts, apart, groups)
                evaluation.sets[name] |= {
                    "captions": sum(map(len, dataset.captions)),
                    "shared_captions": retrieval.shared_captions(texts.alike(dataset.captions)),
                }
    return evaluation


def _facts(suite: Suite, name: str, dataset: Dataset) -> dict[str, Any]:
    described = next(d for d in suite.datasets if d.name == name)
    protocol = dict(dataset.protocol)
    own = described.own_prompts()
    if own is not None:
        protocol["template"] = own if isinstance(own, str) else ", ".join(map(repr, own))
    if dataset.class_names:
        protocol["names_hash"] = _hash(dataset.class_names)
        if dataset.labels:
            protocol["equal names"] = EQUAL_CLASSES[described.data.identical_classes]
    return {
        "pictures": len(dataset),
        "classes": len(set(dataset.labels)),
        "fingerprint": dataset.fingerprint(),
        "protocol": protocol,
        "partial": described.shortfall(dataset),
    }


def _clusters(suite: Suite, name: str, dataset: Dataset) -> np.ndarray:
    """What is resampled together, [pictures]: a concept in all its styles, so numbers of concepts
    are the same in every data set; pictures of another set have no part in this one's."""
    place = next(i for i, d in enumerate(suite.datasets, 1) if d.name == name)
    concepts = isinstance(suite.datasets[place - 1].data, EmojiData)
    return np.array(dataset.groups, dtype=np.int64) + (0 if concepts else place << 40)


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

    def head(self, dataset: Dataset, templates: list[str]) -> Tensor:
        key = (*templates, "", *dataset.class_names)
        if key not in self.heads:
            runtime, tokenizer = self.evaluation.runtime, self.loaded.tokenizer
            names = dataset.class_names
            self.heads[key] = caching.kept(
                self.cache,
                self._key(names, templates),
                lambda: classifier_head(
                    runtime, tokenizer, names, templates, shorten=self.loaded.shorten
                ),
            )
            same = templates == templates_of(self.evaluation.suite.templates)
            start = "class: " if same else f"class of '{templates[0]}': "
            for class_name, feature in zip(dataset.class_names, self.heads[key], strict=True):
                self.evaluation.text_features[start + class_name] = feature
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

    def alike(self, captions: Sequence[Sequence[str]]) -> list[list[str]]:
        """The captions with one text, the first, for all that have the same tokens: to the model
        these are one, so that they tie, which equal features need not in a matrix product."""
        first: dict[bytes, str] = {}
        found: dict[str, str] = {}
        distinct = list(dict.fromkeys(text for own in captions for text in own))
        for start in range(0, len(distinct), 1024):
            some = distinct[start : start + 1024]
            for text, row in zip(some, self.loaded.tokenizer(some), strict=True):
                ids = row.to(torch.int64).cpu().numpy().tobytes().rstrip(b"\0")  # not the padding
                found[text] = first.setdefault(ids, text)
        return [[found[text] for text in own] for own in captions]

    def _key(self, texts: Sequence[str], templates: Sequence[str] = ()) -> caching.Key | None:
        if self.cache is None:
            return None
        runtime, tokenizer = self.evaluation.runtime, self.loaded.tokenizer
        return caching.texts_key(runtime, tokenizer, texts, templates=templates)


def _classify(
    evaluation: Evaluation,
    name: str,
    dataset: Dataset,
    features: Tensor,
    head: Tensor,
    clusters: np.ndarray,
    apart: bool,
) -> None:
    answer = answer_of(dataset.class_names, dataset.answers, apart=apart)
    predicted, sure = predict(features, head, answer, evaluation.runtime.logit_scale)
    right = predicted == answer[torch.tensor(dataset.labels)]
    evaluation.metrics[name]["accuracy"] = Scored(
        right.numpy(), clusters, 1 / (int(answer.max()) + 1)
    )
    evaluation.calibration[name] = calibration_error(sure, right, BINS)
    # Two runtimes may break the tie between classes of one name differently: that is agreement.
    first = torch.tensor([int((answer == a).nonzero()[0]) for a in range(int(answer.max()) + 1)])
    evaluation.predictions[name] = merge_equal_names(dataset.class_names)[first[predicted]]


def _retrieve(
    scored: dict[str, Scored],
    dataset: Dataset,
    features: Tensor,
    texts: _Texts,
    apart: bool,
    groups: np.ndarray,
) -> dict[str, Tensor]:
    task = retrieval.caption_task(texts.alike(dataset.captions), apart)
    text_features = texts.captions(task.texts)
    first_group = groups[[right[0] for right in task.pictures_of]]
    ones = torch.ones(len(features), dtype=torch.int32)
    found = {}
    for way, queries, targets, positives, copies, clusters in (
        (
            "text_to_image",
            text_features[task.queries],
            features,
            task.pictures_of,
            ones,
            first_group,
        ),
        ("image_to_text", features, text_features, task.captions_of, task.copies, groups),
    ):
        ranks = found[way] = retrieval.best_ranks(queries, targets, positives, copies=copies)
        odds = retrieval.chance(positives, int(copies.sum()))
        for k in (1, 5, 10):
            hits = (ranks < k).numpy()
            scored[f"{way}_r{k}"] = Scored(hits, clusters, min(1.0, odds * k))
    return found
