"""Retrieval of pictures by pictures of their class, from one domain to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.data.dataset import GALLERY, QUERY
from radapter.data.searched import of_classes, searchable
from radapter.evaluation.scores import Metric, Scored, Scores
from radapter.evaluation.shown import Firsts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite
    from radapter.evaluation.suite_dataset import SuiteDataset
    from radapter.evaluation.texts import Texts

METRICS = {
    "map": Metric("mAP@all", headline=True),
    "map_200": Metric("mAP@200 by min(200, right ones)"),
    "map_200_found": Metric("mAP@200 by right ones found"),
    "precision_10": Metric("precision at 10", headline=True),
    "precision_100": Metric("precision at 100"),
    "precision_200": Metric("precision at 200"),
}
DATA = "classification"
TRIVIAL = ("raw pixels",)


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """Its pictures as queries with their gallery; queries without a right picture are left out."""
    if described.classes is not None and dataset.labels:
        dataset = of_classes(dataset, described.classes)
    if described.gallery is None:
        return searchable(dataset, None)
    return described.gallery.searched(dataset)


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """No texts."""
    return "texts", ()


def protocol(suite: Suite) -> dict[str, Any]:
    """What is right, how it is ranked, and how ties are counted."""
    return {
        "picture retrieval": "a picture of the query's class is right; by cosine, exact over the "
        "whole gallery; a tie counts as a miss; mAP@200 divides by min(200, right pictures), "
        "`map_200_found` by those among the first 200, as published code does"
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
    """Every metric of every query; the chance is that of a random order of each one's gallery."""
    import numpy as np

    from radapter.evaluation import picture_retrieval

    values, chances = picture_retrieval.score(dataset, features)
    first, best, ranks = picture_retrieval.firsts(dataset, features)
    roles = np.array(dataset.searched)
    queries = np.flatnonzero(roles & QUERY)
    own = clusters[queries]
    return Scores(
        {name: Scored(values[name], own, float(chances[name].mean())) for name in METRICS},
        facts={
            "queries": len(own),
            "gallery": int(np.count_nonzero(roles & GALLERY)),
        },
        shown=Firsts(
            queries.tolist(),
            [dataset.class_names[dataset.labels[i]] for i in queries],
            first.tolist(),
            best.tolist(),
            ranks.tolist(),
        ),
    )
