"""Motion: of the captions of one thing in several motions, the one that is nearest to the clip."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.errors import BrokenInput
from radapter.evaluation.scores import Metric, Scored, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite, SuiteDataset
    from radapter.evaluation.texts import Texts

METRICS = {
    "motion_accuracy": Metric("motion accuracy, the thing given", headline=True),
    "direction_accuracy": Metric("direction accuracy, the axis given", headline=True),
}
DATA = "captions"
TIE = 1e-6
"""Cosines that differ by no more are equal, as of texts whose words a model does not know"""


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """The clips, each with its choices."""
    if not dataset.choices:
        raise BrokenInput(f"{dataset.source} has no motions to choose from.")
    return dataset


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads: every choice."""
    return "captions of motions", itertools.chain(*dataset.choices)


def protocol(suite: Suite) -> dict[str, Any]:
    """How a choice is made."""
    return {"motion": "the nearest of the captions of a thing; of k that tie, each counts 1 / k"}


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """How often the right motion is nearer than all others, and how often it is nearer than its
    opposite. To the mean of frames, a motion and its opposite are the same: half of these
    answers are right.
    """
    import torch

    distinct = list(dict.fromkeys(itertools.chain(*dataset.choices)))
    row = {text: place for place, text in enumerate(distinct)}
    encoded = texts.captions(distinct)
    found = torch.stack(
        [
            encoded[[row[text] for text in own]] @ feature
            for own, feature in zip(dataset.choices, features, strict=True)
        ]
    )
    some = {"motion_accuracy": found.shape[1], "direction_accuracy": 2}
    return Scores(
        {
            name: Scored(_share(found[:, :number]).numpy(), clusters, 1 / number)
            for name, number in some.items()
        }
    )


def _share(cosines: Tensor) -> Tensor:
    """Of each row [n, choices] 1 if the first is the largest, or its share of those that tie."""
    tied = cosines >= cosines.amax(dim=1, keepdim=True) - TIE
    return tied[:, 0].double() / tied.sum(dim=1)
