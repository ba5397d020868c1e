"""Retrieval between the pictures of a set and their captions, both ways."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from radapter.data.scored import captioned
from radapter.errors import UsageError
from radapter.evaluation.scores import Metric, Scored, Scores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radapter.data import Dataset
    from radapter.evaluation.suite import Suite
    from radapter.evaluation.suite_dataset import SuiteDataset
    from radapter.evaluation.texts import Texts

WAYS = {"text_to_image": "caption to picture", "image_to_text": "picture to caption"}
RECALLS = (1, 5, 10)
METRICS = {
    f"{way}_r{k}": Metric(f"{title} R@{k}", headline=k == 1)
    for way, title in WAYS.items()
    for k in RECALLS
}
DATA = "captions"
EQUAL_CAPTIONS = {
    "one": "texts of the same tokens are one caption",
    "apart": "no prefix; texts of the same tokens are captions of their own, each right for its "
    "own picture",
}


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """The pictures with a caption; of clips, with what `match` needs of them."""
    said = described.match.in_words()
    if said is None:
        return captioned(dataset)
    if dataset.frames is None:
        raise UsageError(f"{dataset.source} has pictures, and `match` is of clips: leave it out.")
    if described.match.frames == "auxiliary" and not dataset.auxiliary:
        raise UsageError(
            f"{dataset.source} has no auxiliary captions: name their column as auxiliary_column in "
            "the data section of the suite."
        )
    dataset = captioned(dataset)
    return dataclasses.replace(dataset, protocol=dataset.protocol | {"match": said})


def asks(dataset: Dataset, templates: Sequence[str]) -> tuple[str, Iterable[str]]:
    """The texts that the model reads: every caption."""
    return "captions", itertools.chain(*dataset.captions)


def protocol(suite: Suite) -> dict[str, Any]:
    """How captions that are equal and ties are counted."""
    equal = EQUAL_CAPTIONS[suite.identical_captions]
    return {"retrieval": f"{equal}; a tie counts as a miss"}


def score(
    dataset: Dataset,
    features: Tensor,
    texts: Texts,
    *,
    suite: Suite,
    described: SuiteDataset,
    clusters: np.ndarray,
) -> Scores:
    """Recalls both ways, and what papers report beside them: their sum, in %, and median and mean
    ranks, from 1, a half of the median rounded down, as VSE++ has it."""
    import numpy as np
    import torch

    from radapter.evaluation import matching, retrieval

    match = described.match
    alike = texts.by_tokens(dataset.captions)
    task = retrieval.caption_task(alike, suite.identical_captions == "apart")
    ones = torch.ones(len(dataset), dtype=torch.int32)
    sides: Any
    remarks = []
    if match.by == "mug":
        similar, said = matching.mug(dataset, task.texts, texts, match)
        sides = (similar, None), (similar.T, None)
        remarks = [said]
    else:
        captions = texts.captions(task.texts)
        if match.frames == "auxiliary":
            features = matching.weighted(dataset, texts, match)
        sides = (captions, features), (features, captions)
    # Queries, targets, the row of each query, copies of targets, the right ones, what is one item.
    ways = {
        "text_to_image": (*sides[0], task.queries, ones, task.pictures_of,
                          clusters[[right[0] for right in task.pictures_of]]),
        "image_to_text": (*sides[1], None, task.copies, task.captions_of, clusters),
    }  # fmt: skip
    scored, medians, means = {}, {}, {}
    for way, (queries, targets, which, copies, right, own) in ways.items():
        ranks = retrieval.best_ranks(queries, targets, right, copies=copies, which=which)
        medians[f"{way}_median_rank"] = 1 + int(np.median(ranks.numpy()))
        means[f"{way}_mean_rank"] = 1 + float(ranks.double().mean())
        chance = retrieval.chance(right, int(copies.sum()))
        for k in RECALLS:
            scored[f"{way}_r{k}"] = Scored((ranks < k).numpy(), own, min(1.0, chance * k))
    recalls = [scored[f"{way}_r{k}"].scores.mean() for way in reversed(WAYS) for k in RECALLS]
    return Scores(
        scored,
        facts={
            "captions": sum(map(len, dataset.captions)),
            "shared_captions": retrieval.shared_captions(alike),
        },
        remarks=remarks,
        further={"retrieval": {"recall_sum": 100 * float(sum(recalls))} | medians | means},
    )
