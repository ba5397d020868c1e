"""Score a runtime on a suite: features once, then every metric with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radapter import distributed
from radapter.data import Dataset
from radapter.data.dataset import check_broken, name_skipped
from radapter.data.left_out import merged, summary_of
from radapter.data.pairs import templates_of
from radapter.errors import BrokenInput
from radapter.evaluation import cache as caching
from radapter.evaluation.encoding import ReadAlone, encode_set
from radapter.evaluation.published import EQUAL_CLASSES
from radapter.evaluation.result import Evaluation, SetResult
from radapter.evaluation.scores import Scores, Task
from radapter.evaluation.suite import Suite
from radapter.evaluation.suite_dataset import SuiteDataset
from radapter.evaluation.texts import Texts
from radapter.names import to_bytes
from radapter.registry import TASKS, load
from radapter.runtimes import BATCH
from radapter.runtimes.opened import OpenModel
from radapter.versions import versions


def protocol(suite: Suite, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """The choices, besides those of a data set, that a number depends on; written beside it."""
    templates = templates_of(suite.templates)
    own = {d.name: own for d in suite.datasets if (own := d.own_prompts()) is not None}
    counts = sorted({len(templates_of(suite.prompts(d))) for d in suite.datasets})
    of_tasks = [load(TASKS, task).protocol(suite) for task in suite.tasks]
    units = {d.data.resampled_by for d in suite.datasets} - {"pictures"} or {"pictures"}
    return {
        "templates": suite.templates,
        "templates_hash": _hash(templates),
        **({"dataset_templates": own} if own else {}),
        "head": "mean of normalized text features, templates: "
        f"{' or '.join(map(str, counts))}; normalized",
        "averages": suite.averages,
        **({"harmonic_means": suite.harmonic_means} if suite.harmonic_means else {}),
        **{key: value for own in of_tasks for key, value in own.items()},
        "interval": f"95 %, percentile bootstrap over {' and '.join(sorted(units))}",
        "preprocessing": preprocessing,
    }


def result_of(
    suite: Suite, preprocessing: Mapping[str, Any], seed: int, of: dict[str, Any], **scored: Any
) -> dict[str, Any]:
    """A result as it is written: `of` says what was scored, `scored` how."""
    return {
        "schema_version": 1,
        "suite": suite.name,
        **of,
        "seed": seed,
        "versions": versions(),
        "protocol": protocol(suite, preprocessing),
        **scored,
    }


def _hash(texts: list[str]) -> str:
    return hashlib.sha256(to_bytes("\n".join(texts))).hexdigest()


def evaluate(
    suite: Suite,
    model: OpenModel,
    *,
    opened: dict[str, dict[Task, Dataset]] | None = None,
    batch_size: int = BATCH,
    cache: caching.Cache | None = None,
    keep_features: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every data set of a suite on every task.

    Args:
        suite: what to score on.
        model: what computes the features.
        opened: what `suite.open()` gave, if it is open already.
        cache: where features are looked for and kept, if its runtime has an `identity`, which has
            to be true of it: weights changed in place have the hash they were loaded with. None:
            nowhere. The result is the same.
        keep_features: False: features of pictures are for scores alone, and go with them; see
            `parity`, which compares them.
        on_progress: called with pictures done and pictures in all; after that, where a model reads
            pictures and texts together, with pairs done and pairs in all.

    Several ranks (see `radapter.distributed`) share the encoding; each has the whole result.

    Pictures that cannot be read are named on stderr and left out, with their labels and texts, up
    to the data set's own `broken_images`.

    Raises:
        BrokenInput: a data set is missing, or more of its pictures cannot be read (the first few
            are named).
    """
    (evaluation,) = evaluate_together(
        suite, [model], opened=opened, batch_size=batch_size, cache=cache,
        keep_features=keep_features, on_progress=on_progress,
    )  # fmt: skip
    return evaluation


def evaluate_together(
    suite: Suite,
    models: Sequence[OpenModel],
    *,
    opened: dict[str, dict[Task, Dataset]] | None = None,
    batch_size: int = BATCH,
    cache: caching.Cache | None = None,
    keep_features: bool = True,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Evaluation]:
    """Score several models that prepare pictures alike, such as one at several alphas: each picture
    is read and decoded once for all. Numbers are those of `evaluate`, model by model.

    Args:
        models: of one form and one `preprocessing`.
        keep_features: False: features of pictures go when their data set is scored, and are not
            made where its tasks use none.
        others: as of `evaluate`, which says what is raised too.
    """
    if distributed.world_size() > 1:
        cache = None  # one rank may have there what another has to encode together with the others
    opened = opened or suite.open()
    described = {dataset.name: dataset for dataset in suite.datasets}
    # A set may hold more pictures for one task than for another: each is encoded once.
    pictures = {name: _pictures(tasks) for name, tasks in opened.items()}
    total = sum(map(len, pictures.values()))
    done = 0
    evaluations = [Evaluation(suite, model.runtime) for model in models]
    texts = [
        Texts(e, model, cache, on_progress) for e, model in zip(evaluations, models, strict=True)
    ]
    for name, tasks in opened.items():
        seen: dict[str, str] = {}

        def on_batch(read: int, failed: dict[str, str], name: str = name, seen: Any = seen) -> None:
            nonlocal done
            seen |= failed
            limit = described[name].data.broken_images
            check_broken(list(seen.values()), limit, f"{name}: data.broken_images")
            done += read + len(failed)
            on_progress(done, total)

        used = keep_features or not all(map(encodes_itself, tasks))
        runtimes: list[Any] = [model.runtime if used else ReadAlone() for model in models]
        features, broken = encode_set(
            runtimes,
            models[0].preprocess,
            models[0].preprocessing,
            [(key, *where) for key, where in pictures[name].items()],
            batch_size=batch_size,
            cache=cache if used else None,
            on_batch=on_batch,
        )
        if not len(features[0]):
            raise BrokenInput(f"{name}: no picture can be read.")
        for message in broken.values() if distributed.is_main_process() else ():
            name_skipped(message)
        names = [key for key in pictures[name] if key not in broken]
        tasks = {task: _without(dataset, broken) for task, dataset in tasks.items()}
        facts = _facts(suite, described[name], tasks, names, broken)
        remarks = [note for dataset in tasks.values() for note in dataset.notes]
        remarks += texts[0].remarks(tasks, suite.prompts(described[name]))
        for i, evaluation in enumerate(evaluations):
            own, features[i] = features[i], torch.empty(0, 0)  # so that it can go
            result = SetResult(names, facts | {"remarks": list(dict.fromkeys(remarks))})
            evaluation.sets[name] = result
            _score(evaluation, described[name], tasks, own, texts[i])
            if keep_features:
                result.image_features = own
    return evaluations


def encodes_itself(task: Task) -> bool:
    """Whether a task makes no use of the features of whole pictures."""
    return bool(getattr(load(TASKS, task), "ENCODES_ITSELF", False))


def _score(
    evaluation: Evaluation,
    described: SuiteDataset,
    tasks: dict[Task, Dataset],
    features: Tensor,
    texts: Texts,
) -> None:
    """Fill in every metric of a data set, from features of its pictures in their order."""
    suite, name = evaluation.suite, described.name
    result = evaluation.sets[name]
    row = {key: i for i, key in enumerate(result.pictures)}
    for task, dataset in tasks.items():
        own = features[[row[key] for key in dataset.keys]]
        clusters = _clusters(suite, name, dataset)
        found: Scores = load(TASKS, task).score(
            dataset, own, texts, suite=suite, described=described, clusters=clusters
        )
        result.metrics |= found.metrics
        result.facts |= found.facts
        result.facts["remarks"] += found.remarks
        result.further |= found.further
        result.files |= found.files
        if found.shown is not None:
            result.shown[task] = found.shown
        if found.predictions is not None:
            result.predictions = found.predictions


def _facts(
    suite: Suite,
    described: SuiteDataset,
    tasks: dict[Task, Dataset],
    names: Sequence[str],
    broken: dict[str, str],
) -> dict[str, Any]:
    """What a data set is, whatever scores it; of its pictures `names` could be read."""
    dataset = next(iter(tasks.values()))
    left_out = merged(*(own.left_out for own in tasks.values()), {"broken": list(broken)})
    protocol = dict(dataset.protocol)
    own = described.own_prompts()
    if own is not None:
        protocol["template"] = own if isinstance(own, str) else ", ".join(map(repr, own))
    if dataset.class_names:
        protocol["names_hash"] = _hash(dataset.class_names)
        if dataset.labels:
            protocol["equal names"] = EQUAL_CLASSES[described.data.identical_classes]
    return {
        "pictures": len(names),
        "broken": len(broken),
        "left_out": summary_of(left_out),
        "classes": len(set(dataset.labels)),
        "fingerprint": dataset.fingerprint(),
        "protocol": protocol,
        "partial": described.shortfall(dataset),
    }


def _clusters(suite: Suite, name: str, dataset: Dataset) -> np.ndarray:
    """What is resampled together, [pictures]: groups that have the same numbers in every data set,
    or pictures, which have no part in another set's."""
    place = next(i for i, d in enumerate(suite.datasets, 1) if d.name == name)
    pictures = suite.datasets[place - 1].data.resampled_by == "pictures"
    return np.array(dataset.groups, dtype=np.int64) + (place << 40 if pictures else 0)


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
