"""Pictures looked for by a picture and what is to be changed of it: exact ranks, edit by edit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radapter.data.edits import MEASURES, Edit, Measure
from radapter.evaluation.picture_retrieval import first_of, ranks_of, summed
from radapter.evaluation.retrieval import SIMILARITIES

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
"""Of the text, which a choice is made among"""
CHOSEN_BY = "map_50"


def summed_query(pictures: Tensor, texts: Tensor, weight: float) -> Tensor:
    """(1 - w) picture + w text, normalised. All [edits, dim] and unit norm."""
    return F.normalize((1 - weight) * pictures + weight * texts, dim=-1)


def best_weight(
    edits: Sequence[Edit], pictures: Tensor, texts: Tensor, features: Tensor
) -> tuple[float, float]:
    """The weight of the text that finds the right pictures of edits best, and their mAP@50 with
    it, each kind of edit counting the same. Of equal ones it is the smallest.

    Args:
        pictures: features of references, texts: of what is to be changed, [edits, dim].
        features: of all pictures that edits name.
    """
    found = {}
    for weight in WEIGHTS:
        queries = summed_query(pictures, texts, weight)
        value = values(edits, queries, features, [CHOSEN_BY])[CHOSEN_BY]
        found[weight] = float((value * shares_of_kinds(edits)).mean())
    best = max(found, key=lambda weight: (found[weight], -weight))
    return best, found[best]


def values(
    edits: Sequence[Edit], queries: Tensor, features: Tensor, measured: Sequence[str]
) -> dict[str, np.ndarray]:
    """By measure the value of each edit, [edits].

    A right picture's rank is 1 + the right ones that are more similar to the query + the wrong ones
    that are at least as similar: a tie counts against us, and so does what is no number. Recall
    at k is 1 if any right picture is among the first k. Average precision at k is the sum of i /
    rank over the right pictures among them, the i-th of which has that rank, divided by
    min(k, right pictures).

    A measure `by_kind` is multiplied with edits / (kinds x edits of its kind), so that its mean is
    the mean of the means of kinds.

    Args:
        queries: unit norm [edits, dim].
        features: of the pictures that edits name, unit norm [pictures, dim].
    """
    found = {name: np.zeros(len(edits)) for name in measured}
    for row, (edit, similarity) in enumerate(similarities(edits, queries, features)):
        for subset in {MEASURES[name].subset for name in measured}:
            ranks = _ranks(edit, among(edit, subset), similarity)
            for name in measured:
                if MEASURES[name].subset == subset:
                    found[name][row] = _value(MEASURES[name], ranks)
    shares = shares_of_kinds(edits)
    return {
        name: value * shares if MEASURES[name].by_kind else value for name, value in found.items()
    }


def similarities(
    edits: Sequence[Edit], queries: Tensor, features: Tensor
) -> Iterator[tuple[Edit, np.ndarray]]:
    """Each edit with how similar all pictures are to its query, [pictures]; a few at a time."""
    chunk = max(1, SIMILARITIES // len(features))
    for start in range(0, len(edits), chunk):
        some = (queries[start : start + chunk] @ features.T).numpy()
        yield from zip(edits[start : start + chunk], some, strict=True)


def among(edit: Edit, subset: bool = False) -> np.ndarray:
    """The pictures that are ranked."""
    if subset:
        return np.array(edit.subset)
    gallery = np.array(edit.gallery)
    return gallery[gallery != edit.reference] if edit.without_reference else gallery


def first(edit: Edit, similarity: np.ndarray, k: int, subset: bool = False) -> list[int]:
    """The k most similar pictures, of equal ones the earlier; what is no number comes last."""
    ranked = among(edit, subset)
    known = np.where(np.isnan(similarity[ranked]), -np.inf, similarity[ranked])
    return ranked[np.argsort(-known, kind="stable")[:k]].tolist()


def firsts(
    edits: Sequence[Edit], queries: Tensor, features: Tensor
) -> tuple[list[int], list[int], list[int]]:
    """What each edit finds first, its best right picture, and the rank of that; see `values`."""
    found: list[tuple[int, int, int]] = []
    for edit, similarity in similarities(edits, queries, features):
        ranked = among(edit)
        right = np.isin(ranked, edit.targets)[None]
        first, best, rank = first_of(similarity[None, ranked], right, np.zeros_like(right))
        found.append((int(ranked[first[0]]), int(ranked[best[0]]), int(rank[0])))
    first_ones, right_ones, ranks = (list(column) for column in zip(*found, strict=True))
    return first_ones, right_ones, ranks


def shares_of_kinds(edits: Sequence[Edit]) -> np.ndarray:
    """What each edit counts if every kind is to count the same, of mean 1, [edits]."""
    _, kind, count = np.unique([e.kind for e in edits], return_inverse=True, return_counts=True)
    return len(edits) / (len(count) * count[kind])


def chance(edits: Sequence[Edit], measure: Measure) -> float:
    """What a random order has on average.

    Of a gallery of n with m right pictures none is among the first k with probability
    C(n - m, k) / C(n, k). For average precision see `picture_retrieval.expected`.
    """
    counts: dict[tuple[int, int], float] = {}
    of_each = np.zeros(len(edits))
    for row, edit in enumerate(edits):
        ranked = among(edit, measure.subset)
        size, right = len(ranked), int(np.isin(edit.targets, ranked).sum())
        if (size, right) not in counts:
            counts[size, right] = _chance(size, right, measure)
        of_each[row] = counts[size, right]
    return float((of_each * shares_of_kinds(edits) if measure.by_kind else of_each).mean())


def _chance(size: int, right: int, measure: Measure) -> float:
    k = min(measure.k, size)
    if measure.precision:
        return right / size * summed(right, size, k) / max(1, min(measure.k, right))
    return 1 - math.comb(size - right, k) / math.comb(size, k)


def _ranks(edit: Edit, ranked: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """The ranks of the right pictures, from 1, rising."""
    right = np.isin(ranked, edit.targets)
    none = np.zeros((1, len(ranked)), dtype=bool)
    return ranks_of(similarity[None, ranked], right, none)[0][0]


def _value(measure: Measure, ranks: np.ndarray) -> float:
    if not measure.precision:
        return float((ranks <= measure.k).any())
    precision = np.arange(1, len(ranks) + 1) / ranks
    return float(precision[ranks <= measure.k].sum() / max(1, min(measure.k, len(ranks))))


def mean_of_wordings(edits: Sequence[Edit], features: Tensor) -> Tensor:
    """Of each edit the normalised mean of its texts' features.

    Args:
        features: of all texts of the first edit, then of the second, and so on [texts, dim].
    """
    parts = torch.split(features, [len(edit.texts) for edit in edits])
    return F.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=-1)
