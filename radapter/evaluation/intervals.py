"""How sure a mean score is. Items of one cluster (one concept or picture) are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radapter.errors import UsageError

RESAMPLES = 2000
LARGE = 5000
"""Items from which on those of a set that is alone are drawn by their score: the same distribution
in a hundredth of the time and memory"""


def mean_interval(
    scores: Sequence[np.ndarray], clusters: Sequence[np.ndarray], *, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over data sets of their mean score.

    Sets over the same clusters (the same concepts in other styles) are resampled together, others
    apart. Always the same draws, so that one result gives one interval.

    Args:
        scores: for each data set the scores of its items, [items].
        clusters: for each data set the cluster of each item, [items].
    """
    generator = np.random.default_rng(0)
    drawn: dict[bytes, np.ndarray] = {}
    means = []
    sets = [np.unique(cluster, return_inverse=True) for cluster in clusters]
    keys = [names.tobytes() for names, _ in sets]
    for score, (names, member), key in zip(scores, sets, keys, strict=True):
        if LARGE < len(names) == len(score) and keys.count(key) == 1:
            values, counts = np.unique(score.astype(float), return_counts=True)
            draws = generator.multinomial(len(score), counts / len(score), size=RESAMPLES)
            means.append(draws @ values / len(score))
            continue
        if key not in drawn:
            share = np.full(len(names), 1 / len(names))
            drawn[key] = generator.multinomial(len(names), share, size=RESAMPLES)
        sums = np.bincount(member, weights=score.astype(float))
        counts = np.bincount(member)
        means.append((drawn[key] @ sums) / (drawn[key] @ counts))
    low, high = np.quantile(np.mean(means, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
