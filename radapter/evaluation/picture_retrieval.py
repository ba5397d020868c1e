"""Pictures looked for by pictures: exact average precision and precision, class by class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from radapter.data import Dataset
from radapter.data.dataset import GALLERY, QUERY
from radapter.evaluation.retrieval import SIMILARITIES

FIRST = 200
"""The k of mAP@k, as published for Sketchy and DomainNet"""
PRECISIONS = (10, 100, 200)
NEVER = np.iinfo(np.int64).max
"""The rank of what is no answer to a query"""
Values = dict[str, np.ndarray]


def score(dataset: Dataset, features: Tensor, chunk: int | None = None) -> tuple[Values, Values]:
    """By metric the value of each query and what a random order is expected to have, [queries].

    Of the pictures of a query's class, rank i-th best has i - 1 of them before it and as many
    others as are at least as similar to the query: a tie counts against us, and so does what is no
    number. `map` is the mean over these pictures of i / rank. `map_200` sums it over the first 200
    ranks and divides by min(200, right pictures); `map_200_found` by those that are found there,
    as published code does (0 if none is). `precision_k` is the share of right ones among the
    first k, or among all if there are fewer. A query whose class is not in its gallery has 0.

    Similarities are formed for a few queries of a class at a time: memory does not grow with
    queries x gallery.

    Args:
        dataset: with `searched` and `alike`.
        features: unit norm, [pictures, dim].
        chunk: queries at a time; None: as many as `SIMILARITIES` allows.
    """
    searched, alike = np.array(dataset.searched), np.array(dataset.alike)
    labels = np.array(dataset.labels)
    queries = np.flatnonzero(searched & QUERY)
    gallery = np.flatnonzero(searched & GALLERY)
    chunk = chunk or max(1, SIMILARITIES // max(1, len(gallery)))
    names = ["map", f"map_{FIRST}", f"map_{FIRST}_found", *(f"precision_{k}" for k in PRECISIONS)]
    values = {name: np.zeros(len(queries)) for name in names}
    chances = {name: np.zeros(len(queries)) for name in names}
    known: dict[tuple[int, int], Mapping[str, float]] = {}
    for label in np.unique(labels[queries]):
        asking = np.flatnonzero(labels[queries] == label)
        right = labels[gallery] == label
        for start in range(0, len(asking), chunk):
            rows = asking[start : start + chunk]
            similarity = (features[queries[rows]] @ features[gallery].T).numpy()
            left_out = alike[queries[rows], None] == alike[None, gallery]
            ranks, sizes = ranks_of(similarity, right, left_out)
            for name, found in measures(ranks, sizes).items():
                values[name][rows] = found
            for row, own, size in zip(rows, (ranks != NEVER).sum(1), sizes, strict=True):
                pair = int(own), int(size)
                if pair not in known:
                    known[pair] = expected(*pair)
                for name, value in known[pair].items():
                    chances[name][row] = value
    return values, chances


def firsts(
    dataset: Dataset, features: Tensor, chunk: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each query finds first, its best right picture, and the rank of that, [queries] each;
    pictures are places in the data set. See `score` for the arguments, and for ties."""
    searched, alike = np.array(dataset.searched), np.array(dataset.alike)
    labels = np.array(dataset.labels)
    queries = np.flatnonzero(searched & QUERY)
    gallery = np.flatnonzero(searched & GALLERY)
    chunk = chunk or max(1, SIMILARITIES // max(1, len(gallery)))
    found = np.zeros((3, len(queries)), dtype=np.int64)
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        similarity = (features[rows] @ features[gallery].T).numpy()
        right = labels[rows, None] == labels[None, gallery]
        left_out = alike[rows, None] == alike[None, gallery]
        first, best, rank = first_of(similarity, right, left_out)
        found[:, start : start + chunk] = gallery[first], gallery[best], rank
    return found[0], found[1], found[2]


def first_of(
    similarity: np.ndarray, right: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The place of what each query finds first, of its best right answer, and that one's rank from
    1, all [queries]. A tie counts against us, and so does what is no number.

    Args:
        similarity, right, left_out: [queries, gallery]; each query has a right answer.
    """
    own = np.where(np.isnan(similarity) | ~right | left_out, -np.inf, similarity)
    wrong = np.where(np.isnan(similarity), np.inf, similarity)
    wrong[right | left_out] = -np.inf
    # Of right answers that are all no numbers, the first that is one.
    best = np.where(
        np.isneginf(own.max(axis=1)), (right & ~left_out).argmax(axis=1), own.argmax(axis=1)
    )
    value = own.max(axis=1, keepdims=True)
    rank = 1 + ((wrong >= value) & ~right & ~left_out).sum(axis=1)
    return np.where(rank > 1, wrong.argmax(axis=1), best), best, rank


def ranks_of(
    similarity: np.ndarray, right: np.ndarray, left_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of the right pictures of each query, from 1, rising, and among how many it looks.

    Args:
        similarity: [queries, gallery].
        right: which of the gallery are right for all of these queries, [gallery].
        left_out: what is no answer to a query, [queries, gallery].

    Returns:
        int64 [queries, right ones], NEVER at the end where some are left out; int64 [queries].
    """
    wrong = np.where(np.isnan(similarity), np.inf, similarity)[:, ~right]
    wrong[left_out[:, ~right]] = -np.inf
    wrong.sort(axis=1)
    others = (~left_out[:, ~right]).sum(axis=1)
    own = np.where(np.isnan(similarity), -np.inf, similarity)[:, right]
    own[left_out[:, right]] = -np.inf
    own = -np.sort(-own, axis=1)
    answers = (~left_out[:, right]).sum(axis=1)
    before = np.empty(own.shape, dtype=np.int64)
    for row in range(len(own)):
        before[row] = wrong.shape[1] - np.searchsorted(wrong[row], own[row], side="left")
    place = np.arange(1, own.shape[1] + 1)
    ranks = place + np.minimum(before, others[:, None])
    ranks[place > answers[:, None]] = NEVER
    return ranks, others + answers


def measures(ranks: np.ndarray, sizes: np.ndarray) -> Values:
    """Every metric from what `ranks_of` gives, [queries]."""
    place = np.arange(1, ranks.shape[1] + 1)
    answers = (ranks != NEVER).sum(axis=1)
    precision = np.where(ranks == NEVER, 0.0, place / ranks)
    first = ranks <= FIRST
    within, found = (precision * first).sum(axis=1), first.sum(axis=1)
    values = {
        "map": precision.sum(axis=1) / np.maximum(1, answers),
        f"map_{FIRST}": within / np.maximum(1, np.minimum(FIRST, answers)),
        f"map_{FIRST}_found": within / np.maximum(1, found),
    }
    for k in PRECISIONS:
        values[f"precision_{k}"] = (ranks <= k).sum(axis=1) / np.maximum(1, np.minimum(k, sizes))
    return values


def expected(right: int, size: int) -> dict[str, float]:
    """The metrics that a random order of a gallery has on average.

    At rank r stands a right picture with probability right / size, and then (r - 1) (right - 1) /
    (size - 1) others are expected before it. With m of them among the first k, in random order,
    the mean precision at them is that of a gallery of k with m right ones; m is hypergeometric.
    """
    k = min(FIRST, size)
    values = {
        "map": _mean_precision(right, size),
        f"map_{FIRST}": right / size * summed(right, size, k) / max(1, min(FIRST, right)),
        f"map_{FIRST}_found": 0.0,
    }
    if right:
        some = 1 - _none(right, size, k)
        slope = _mean_precision(2, k) - _mean_precision(1, k) if k > 1 else 0.0
        at_none = _mean_precision(1, k) - slope
        values[f"map_{FIRST}_found"] = at_none * some + slope * k * right / size
    return values | {f"precision_{k}": right / size for k in PRECISIONS}


def _mean_precision(right: int, size: int) -> float:
    return summed(right, size, size) / size if right else 0.0


def summed(right: int, size: int, k: int) -> float:
    """The sum over the first k ranks of the precision expected there, if a right picture is."""
    harmonic = float((1 / np.arange(1, k + 1)).sum())
    return harmonic + (right - 1) / max(1, size - 1) * (k - harmonic)


def _none(right: int, size: int, k: int) -> float:
    """The probability that none of the right ones is among the first k."""
    drawn = np.arange(k)
    return float(np.prod(np.maximum(0.0, size - right - drawn) / (size - drawn)))
