"""The confidence interval of a mean score, of items that may be correlated within a cluster; and of
the mean over several trainings, which are a sample too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from radapter.errors import UsageError

LEVEL = 0.95
RESAMPLES = 2000
TRAINING_RESAMPLES = 10_000
"""Of a study, whose p values have to be small enough for many comparisons"""
BLOCK = 100
"""Resamples drawn at a time: of a set of 20,000 pictures, 16 MB"""
SEED = 0
LARGE = 5000
"""Items from which on those of a set that is alone are drawn by their score: the same distribution
in a hundredth of the time and memory"""


def mean_interval(
    scores: Sequence[np.ndarray], clusters: Sequence[np.ndarray]
) -> tuple[float, float]:
    """95 % percentile interval of the mean over data sets of their mean score.

    Sets over the same clusters (the same concepts in other styles) are resampled together, others
    apart. Always the same draws, so that one result gives one interval.

    Args:
        scores: for each data set the scores of its items, [items].
        clusters: for each data set the cluster of each item, [items].
    """
    return _percentiles(np.mean(_resampled(scores, clusters), axis=0))


def harmonic(
    scores: Sequence[np.ndarray], clusters: Sequence[np.ndarray], first: int
) -> dict[str, Any]:
    """`value` and `interval` of the harmonic mean of two means: over the `first` so many data
    sets and over the others. Arguments as of `mean_interval`."""
    found = [np.mean(score) for score in scores]
    means = _resampled(scores, clusters)
    value = harmonic_mean(np.mean(found[:first]), np.mean(found[first:]))
    drawn = harmonic_mean(np.mean(means[:first], axis=0), np.mean(means[first:], axis=0))
    return {"value": float(value), "interval": _percentiles(drawn)}


def harmonic_mean(one: Any, other: Any) -> Any:
    """2ab / (a + b), of arrays by element; 0 where both are 0."""
    total = np.add(one, other)
    return 2 * np.multiply(one, other) / np.where(total == 0, 1, total)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resampled(scores: Sequence[np.ndarray], clusters: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each data set its mean score in every resample, [resamples]."""
    generator = np.random.default_rng(SEED)
    sets = [np.unique(cluster, return_inverse=True) for cluster in clusters]
    keys = [names.tobytes() for names, _ in sets]
    means: dict[int, np.ndarray] = {}
    for key in dict.fromkeys(keys):
        places = [i for i, own in enumerate(keys) if own == key]
        score, names = scores[places[0]], sets[places[0]][0]
        alone = LARGE < len(names) == len(score) and len(places) == 1
        values, counts = np.unique(score.astype(float) if alone else [], return_counts=True)
        if alone and len(values) <= LARGE:
            draws = generator.multinomial(len(score), counts / len(score), size=RESAMPLES)
            means[places[0]] = draws @ values / len(score)
            continue
        sums = [np.bincount(sets[i][1], weights=scores[i].astype(float)) for i in places]
        counted = [np.bincount(sets[i][1]) for i in places]
        found = _drawn_together(sums, counted, generator, RESAMPLES)
        means |= dict(zip(places, found, strict=True))
    return [means[i] for i in range(len(scores))]


def _drawn_together(
    sums: Sequence[np.ndarray],
    counts: Sequence[np.ndarray],
    generator: np.random.Generator,
    resamples: int,
) -> list[np.ndarray]:
    """Means [resamples, ...] of data sets over the same clusters, which are drawn once for all.

    Args:
        sums: for each data set the sum of scores of each cluster, [..., clusters].
        counts: for each data set its items in each cluster, of the same shape.
    """
    clusters = sums[0].shape[-1]
    share = np.full(clusters, 1 / clusters)
    blocks: list[list[np.ndarray]] = [[] for _ in sums]
    for start in range(0, resamples, BLOCK):
        size = min(BLOCK, resamples - start)
        drawn = generator.multinomial(clusters, share, size=size)
        for found, of, count in zip(blocks, sums, counts, strict=True):
            with np.errstate(invalid="ignore"):  # no item of a set is drawn: it has no mean
                found.append((drawn @ of.T) / (drawn @ count.T))
    return [np.concatenate(found) for found in blocks]


# ---------------------------------------------------------------- over trainings


def over_trainings(
    sums: Sequence[np.ndarray], counts: Sequence[np.ndarray], clusters: Sequence[int]
) -> list[np.ndarray]:
    """For each data set the mean over trainings of each method's score, in resamples of both
    trainings and clusters, [TRAINING_RESAMPLES, methods].

    Clusters are drawn with replacement. Trainings are few: a bootstrap of five finds four fifths of
    their variance, and takes it as known. So their part is Student's: a resample's mean is moved by
    the deviations of its trainings, each times a draw of a t distribution of n - 1 degrees of
    freedom / sqrt(n (n - 1)). Where clusters do not vary, the interval is that of a t test.
    Training number i of every method is of one seed and has one weight for all methods; clusters
    are drawn for all methods together too. A training none of whose items are drawn has no part in
    that resample.

    Args:
        sums: for each data set the sum of scores of each cluster, [methods, trainings, clusters].
        counts: for each data set its items in each cluster, [trainings, clusters].
        clusters: for each data set a number: those with the same one are over the same clusters.
    """
    generator = np.random.default_rng(SEED)
    weights = _student(generator, counts[0].shape[0])[:, None, :]
    found: dict[int, np.ndarray] = {}
    for number in dict.fromkeys(clusters):
        places = [i for i, own in enumerate(clusters) if own == number]
        flat = [sums[i].reshape(-1, sums[i].shape[-1]) for i in places]
        counted = [np.tile(counts[i], (sums[i].shape[0], 1)) for i in places]
        drawn = _drawn_together(flat, counted, generator, TRAINING_RESAMPLES)
        for place, means in zip(places, drawn, strict=True):
            by_training = means.reshape(len(means), -1, weights.shape[-1])
            there = np.isfinite(by_training)
            with np.errstate(invalid="ignore"):
                mean = np.where(there, by_training, 0).sum(axis=2) / there.sum(axis=2)
            apart = np.where(there, by_training - mean[:, :, None], 0)
            found[place] = mean + (weights * apart).sum(axis=2)
    return [found[i] for i in range(len(sums))]


def _student(generator: np.random.Generator, trainings: int) -> np.ndarray:
    """Weights of deviations from their mean, [TRAINING_RESAMPLES, trainings]: their sum is spread
    as the error of a mean of normal numbers whose variance is not known. Of one training, 0."""
    if trainings == 1:
        return np.zeros((TRAINING_RESAMPLES, 1))
    free = trainings - 1
    normal = generator.standard_normal((TRAINING_RESAMPLES, trainings))
    spread = np.sqrt(generator.chisquare(free, (TRAINING_RESAMPLES, 1)) / free)
    return normal / spread / np.sqrt(trainings * free)


def interval_of(drawn: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of what was found in resamples [resamples]."""
    return _percentiles(drawn[np.isfinite(drawn)])


def p_value(drawn: np.ndarray) -> float:
    """Two-sided, that a difference is 0, of what was found in resamples [resamples]: twice the
    share of them on the other side. It is at least 2 / (resamples + 1)."""
    drawn = drawn[np.isfinite(drawn)]
    other_side = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return min(1.0, 2 * (other_side + 1) / (len(drawn) + 1))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several comparisons survive Holm's correction (1979): in rising order, p number k
    (from 0) of m is compared with 0.05 / (m - k), and the first that is larger ends it."""
    survive = [False] * len(p_values)
    for k, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] > (1 - LEVEL) / (len(p_values) - k) + 1e-12:
            break
        survive[place] = True
    return survive


def standard_error(scores: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of the mean of `scores` [items], of which those of one cluster are correlated.

    The cluster-robust one: sqrt(g / (g - 1) * sum over clusters of (sum of residuals)^2) / items.

    Raises:
        UsageError: there is only one cluster.
    """
    _, member = np.unique(clusters, return_inverse=True)
    sums = np.bincount(member, weights=scores - scores.mean())
    count = len(sums)
    if count < 2:
        raise UsageError("A standard error needs at least two held-out pictures: hold out more.")
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(scores))
