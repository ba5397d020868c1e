"""Segmentation: the class of every pixel, by its cosine to the names of the classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.data.scored import mask_of
from radapter.errors import BrokenInput, UsageError
from radapter.evaluation.scores import Metric, Scored, Scores

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
    """Every metric; pictures are encoded here, one by one, and no dense features are kept."""
    import numpy as np

    from radapter.evaluation import segmentation

    classes = texts.features(dataset, suite.prompts(described))
    counts = [_counted(dataset, i, classes, texts, described) for i in range(len(dataset))]
    right, named, there = (
        np.stack([getattr(c, key) for c in counts]) for key in ("right", "named", "there")
    )
    sums, number = there.sum(axis=0), len(dataset.class_names)
    if not sums.any():
        raise BrokenInput(f"{dataset.source} has no pixel of a class.")
    chance = segmentation.by_chance(sums)
    metrics = {"miou": Scored(segmentation.iou_shares(right, named, there), clusters, chance)}
    every = np.stack([c.there_all for c in counts]).sum(axis=0)
    facts: dict[str, Any] = {"one_class": segmentation.of_one_class(sums, int(sums.argmax()))}
    remarks = [f"one class everywhere has a mIoU of {100 * facts['one_class']:.1f} %"]
    if every[0]:
        shares, facts["thresholds"] = segmentation.with_background(counts)
        metrics["miou_background"] = Scored(shares, clusters, segmentation.by_chance(every))
        facts["all_background"] = segmentation.of_one_class(every, 0)
        remarks.append(
            f"background everywhere {100 * facts['all_background']:.1f} %, with background"
        )
    accuracy = segmentation.accuracy_shares(right, there)
    metrics["pixel_accuracy"] = Scored(accuracy, clusters, 1 / number)
    return Scores(metrics, remarks=["; ".join(remarks)], further={"segmentation": facts})


def _counted(
    dataset: Dataset, index: int, classes: Tensor, texts: Texts, described: SuiteDataset
) -> Any:
    """What is counted of one picture."""
    import numpy as np

    from radapter.evaluation import dense, segmentation

    picture = dataset.read(index)
    mask = mask_of(dataset, index, picture)
    regions = dataset.regions(index) if dataset.regions is not None else None
    found = dense.similarities(texts.model, classes, picture, described.dense, regions)
    best, named = found.max(dim=0)
    scale = texts.model.runtime.logit_scale
    sure = 1 / (scale * (found - best)).exp().sum(dim=0)
    outside = (~best.isfinite()).numpy()
    return segmentation.counts_of(
        np.where(outside, -1, named.numpy()),
        np.where(outside, 0.0, sure.numpy()),
        mask,
        len(dataset.class_names),
    )
