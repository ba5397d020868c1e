"""Segmentation: the class of every pixel, by its cosine to the names of the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.data.scored import mask_of
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.scores import Metric, Scored, Scores
from radapter.evaluation.shown import MAPS, Maps, drawn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite
    from radapter.evaluation.suite_dataset import SuiteDataset
    from radapter.evaluation.texts import Texts

METRICS = {
    "miou": Metric("mIoU without background", headline=True),
    "miou_background": Metric("mIoU with background", headline=True),
    "pixel_accuracy": Metric("pixel accuracy without background"),
}
DATA = "segmentation"
ENCODES_ITSELF = True
"""Features of whole pictures are of use to parity alone"""
ONE_CLASS, NOTHING = "one class everywhere", "background everywhere"
WORDS = {
    "values": "values of the last block, of patches in windows of the model's size that overlap by "
    "half",
    "windows": "features of windows of the model's size, moved by a quarter of it",
    "regions": "features of given regions, all around them painted over",
}


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """Pictures with masks, and with regions where these are to be named."""
    if dataset.mask is None:
        raise BrokenInput(f"{dataset.source} has no masks.")
    dense = described.dense
    if dense.by == "regions" and dataset.regions is None:
        raise UsageError(
            f"{dataset.source} has no regions: set `dense: {{by: windows}}` in the suite, or give "
            "the data set a folder of regions."
        )
    said = WORDS[dense.by] + (f"; shorter side {dense.short_side}" if dense.short_side else "")
    return dataclasses.replace(dataset, protocol=dataset.protocol | {"pixels": said})


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads, and what they are called."""
    return "class prompts", (t.replace("{}", n) for t in templates for n in dataset.class_names)


def protocol(suite: Suite) -> dict[str, Any]:
    """What is counted, and how pixels become background."""
    return {
        "segmentation": "the class of the largest cosine; intersections and unions summed over "
        "pictures, mean over the classes that the masks have; without background: of pixels that "
        "have a class; with: a pixel is background below a threshold of its probability, which is "
        "chosen for every second picture on the others"
    }


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """Every metric; pictures are encoded here, one by one, and no dense features are kept. None by
    patches of an engine that has no file for them: a remark says so."""
    import numpy as np

    from radapter.evaluation import dense, segmentation

    runtime = texts.model.runtime
    if dense.lacks_patches(runtime, described.dense):
        said = f"{runtime.name} has no patch model in {runtime.precision}, so no score by values"
        return Scores({}, remarks=[said])
    classes = texts.features(dataset, suite.prompts(described))
    kept = set(drawn(range(len(dataset)), MAPS, dataset.keys))
    maps: dict[int, np.ndarray] = {}
    counts = []
    for i in range(len(dataset)):
        named, counted = _counted(dataset, i, classes, texts, described)
        counts.append(counted)
        if i in kept:
            maps[i] = named + 1
    right, named, there = (
        np.stack([getattr(c, key) for c in counts]) for key in ("right", "named", "there")
    )
    sums, number = there.sum(axis=0), len(dataset.class_names)
    if not sums.any():
        raise BrokenInput(f"{dataset.source} has no pixel of a class.")
    chance = segmentation.by_chance(sums)
    shares = segmentation.iou_shares(right, named, there)
    one = {ONE_CLASS: segmentation.of_one_class(sums, int(sums.argmax()))}
    metrics = {"miou": Scored(shares, clusters, chance, one)}
    every = np.stack([c.there_all for c in counts]).sum(axis=0)
    further: dict[str, Any] = {}
    if every[0]:
        shares, thresholds = segmentation.with_background(counts)
        further["segmentation"] = {"thresholds": thresholds}
        by_chance = segmentation.by_chance(every)
        nothing = {NOTHING: segmentation.of_one_class(every, 0)}
        metrics["miou_background"] = Scored(shares, clusters, by_chance, nothing)
    accuracy = segmentation.accuracy_shares(right, there)
    one = {ONE_CLASS: float(sums.max() / sums.sum())}
    metrics["pixel_accuracy"] = Scored(accuracy, clusters, 1 / number, one)
    return Scores(metrics, further=further, shown=Maps(maps))


def _counted(
    dataset: Dataset, index: int, classes: Tensor, texts: Texts, described: SuiteDataset
) -> tuple[np.ndarray, Any]:
    """The class of each pixel of one picture, -1 for none, and what is counted of it."""
    from radapter.evaluation import dense, segmentation

    picture = dataset.read(index)
    mask = mask_of(dataset, index, picture)
    regions = dataset.regions(index) if dataset.regions is not None else None
    named, sure = dense.named(texts.model, classes, picture, described.dense, regions)
    return named, segmentation.counts_of(named, sure, mask, len(dataset.class_names))
