import numpy as np
import pytest

from radapter.evaluation.intervals import mean_interval


def test_independent_items_give_the_normal_interval():
    generator = np.random.default_rng(1)
    hits = generator.random(2000) < 0.3
    low, high = mean_interval([hits], [np.arange(2000)])
    error = 1.96 * np.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert low == pytest.approx(hits.mean() - error, abs=0.004)
    assert high == pytest.approx(hits.mean() + error, abs=0.004)


def test_items_of_one_cluster_are_drawn_together():
    hits = np.repeat(np.random.default_rng(2).random(100) < 0.5, 20)
    apart = mean_interval([hits], [np.arange(2000)])
    together = mean_interval([hits], [np.repeat(np.arange(100), 20)])
    # 20 copies carry no more than one: the interval is sqrt(20) times as wide.
    ratio = (together[1] - together[0]) / (apart[1] - apart[0])
    assert ratio == pytest.approx(np.sqrt(20), rel=0.15)


def test_sets_over_the_same_clusters_are_paired():
    hits = np.random.default_rng(3).random(500) < 0.5
    clusters = np.arange(500)
    # A set and its complement: resampled together their mean is always one half.
    assert mean_interval([hits, ~hits], [clusters, clusters]) == pytest.approx((0.5, 0.5))
    low, high = mean_interval([hits, ~hits], [clusters, clusters + 1000])
    assert high - low > 0.03


def test_the_same_scores_give_the_same_interval():
    hits = np.random.default_rng(4).random(50) < 0.5
    assert mean_interval([hits], [np.arange(50)]) == mean_interval([hits], [np.arange(50)])
