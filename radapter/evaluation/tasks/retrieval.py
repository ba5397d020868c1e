"""Retrieval between the pictures of a set and their captions, both ways."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
RERANKED = "_reranked"
"""In the names of metrics of models that put the best answers in order again, beside the others"""
METRICS = {
    f"{way}{kind}_r{k}": Metric(f"{title}{words} R@{k}", headline=k == 1)
    for kind, words in (("", ""), (RERANKED, ", re-ranked"))
    for way, title in WAYS.items()
    for k in RECALLS
}
DATA = "captions"
BY_BEST_CAPTION = "a clip is looked for among all clips, each by its nearest caption (CLIP4Clip)"
"""How clips with several captions find a caption: CLIP4Clip's protocol on MSVD"""
EQUAL_CAPTIONS = {
    "one": "texts of the same tokens are one caption",
    "apart": "no prefix; texts of the same tokens are captions of their own, each right for its "
    "own picture",
}


def needs(dataset: Dataset, described: SuiteDataset) -> Dataset:
    """The pictures with a caption; of clips, with what `match` needs of them."""
    said = described.match.in_words()
    if described.match.rerank and dataset.frames is not None:
        raise UsageError(f"{dataset.source} has clips, and `match.rerank` is of pictures.")
    if said is None:
        return _counted(captioned(dataset))
    if dataset.frames is None:
        raise UsageError(f"{dataset.source} has pictures, and `match` is of clips: leave it out.")
    if described.match.frames == "auxiliary" and not dataset.auxiliary:
        raise UsageError(
            f"{dataset.source} has no auxiliary captions: name their column as auxiliary_column in "
            "the data section of the suite."
        )
    dataset = _counted(captioned(dataset))
    return dataclasses.replace(dataset, protocol=dataset.protocol | {"match": said})


def by_best_caption(dataset: Dataset) -> bool:
    """Whether these are clips of which some have several captions."""
    return dataset.frames is not None and any(len(own) > 1 for own in dataset.captions)


def _counted(dataset: Dataset) -> Dataset:
    """The data set, whose protocol says how clips with several captions are counted."""
    if not by_best_caption(dataset):
        return dataset
    said = {"clip to caption": BY_BEST_CAPTION}
    return dataclasses.replace(dataset, protocol=dataset.protocol | said)


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
    import torch

    from radapter.evaluation import matching, reranking, retrieval

    match = described.match
    alike, apart = texts.by_tokens(dataset.captions), suite.identical_captions == "apart"
    task = retrieval.caption_task(alike, apart)
    ones = torch.ones(len(dataset), dtype=torch.int32)
    found = Scores(
        {},
        facts={
            "captions": sum(map(len, dataset.captions)),
            "shared_captions": retrieval.shared_captions(alike),
        },
    )
    by_text: tuple[Tensor, Tensor | None]
    by_picture: tuple[Tensor, Tensor | None]
    if match.by == "mug":
        similar, said = matching.mug(dataset, task.texts, texts, match)
        by_text, by_picture = (similar, None), (similar.T, None)
        found.remarks.append(said)
    else:
        captions = texts.captions(task.texts)
        if match.frames == "auxiliary":
            features = matching.weighted(dataset, texts, match)
        by_text, by_picture = (captions, features), (features, captions)
    of_texts = clusters[[right[0] for right in task.pictures_of]]
    ways = {
        "text_to_image": Way(by_text, task.pictures_of, ones, task.queries, of_texts),
        "image_to_text": Way(by_picture, task.captions_of, task.copies, None, clusters),
    }
    ranks = {
        name: retrieval.best_ranks(*w.sides, w.right, copies=w.copies, which=w.which)
        for name, w in ways.items()
    }
    if by_best_caption(dataset):
        right = [[number] for number in range(len(dataset))]
        ways["image_to_text"] = Way(by_picture, right, ones, None, clusters)
        clips, told = by_picture
        of_clips = retrieval.best_caption_ranks(clips, told, task.captions_of, apart)
        ranks["image_to_text"] = of_clips
    _add(found, ways, ranks)
    if match.rerank is None or not getattr(texts.model.runtime, "matches", False):
        return found
    of_pictures, of_captions, pairs = reranking.orders(
        texts.model, dataset, features, task.texts, captions, match.rerank, texts.on_pairs
    )
    order = {"text_to_image": of_captions, "image_to_text": of_pictures}
    ranks = {
        name: reranking.best_ranks(*w.sides, w.right, order[name], w.copies, w.which)
        for name, w in ways.items()
    }
    _add(found, ways, ranks, RERANKED)
    said = match.rerank.in_words()
    found.further["reranked"] |= {"pairs": pairs, "protocol": said, **match.rerank.model_dump()}
    found.remarks.append(
        f"re-ranked: {said}. It read {pairs:,} pairs of a picture and a text together, where a "
        f"cosine takes {len(dataset):,} pictures and {len(task.texts):,} texts alone"
    )
    return found


class Way(NamedTuple):
    """One direction."""

    sides: tuple[Tensor, Tensor | None]
    """Features of queries and of targets; or similarities [queries, targets]"""
    right: list[list[int]]
    """The right targets of each query"""
    copies: Tensor
    """How many equal targets each one stands for"""
    which: list[int] | None
    """The row of each query"""
    items: np.ndarray
    """What is one item for the interval, by query"""


def _add(
    found: Scores, ways: Mapping[str, Way], ranks_of: Mapping[str, Tensor], kind: str = ""
) -> None:
    """Add recalls both ways, their sum, and median and mean ranks."""
    import numpy as np

    from radapter.evaluation import retrieval

    medians, means = {}, {}
    for name, way in ways.items():
        ranks = ranks_of[name]
        medians[f"{name}_median_rank"] = 1 + int(np.median(ranks.numpy()))
        means[f"{name}_mean_rank"] = 1 + float(ranks.double().mean())
        chance = retrieval.chance(way.right, int(way.copies.sum()))
        for k in RECALLS:
            hits = (ranks < k).numpy()
            found.metrics[f"{name}{kind}_r{k}"] = Scored(hits, way.items, min(1.0, chance * k))
    names = [f"{way}{kind}_r{k}" for way in reversed(WAYS) for k in RECALLS]
    recalls = [found.metrics[name].scores.mean() for name in names]
    further = {"recall_sum": 100 * float(sum(recalls))} | medians | means
    found.further[kind.removeprefix("_") or "retrieval"] = further
