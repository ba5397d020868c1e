import numpy as np
import pytest

from radapter.errors import UsageError
from radapter.evaluation import intervals
from radapter.evaluation.intervals import mean_interval, standard_error


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


def test_the_standard_error_cluster_by_cluster():
    scores = np.array([1, 0, 1, 1, 0, 1, 0], bool)
    clusters = np.array([3, 3, 3, 8, 5, 5, 9])
    mean, total = scores.mean(), 0.0
    for cluster in (3, 5, 8, 9):
        total += sum(float(s) - mean for s in scores[clusters == cluster]) ** 2
    expected = (4 / 3 * total) ** 0.5 / 7
    assert standard_error(scores, clusters) == pytest.approx(expected)


def test_copies_of_an_item_make_nothing_surer():
    scores = np.random.default_rng(5).random(60) < 0.4
    once = standard_error(scores, np.arange(60))
    assert once == pytest.approx(np.sqrt(scores.mean() * (1 - scores.mean()) / 59))
    again = standard_error(np.repeat(scores, 7), np.repeat(np.arange(60), 7))
    assert again == pytest.approx(once)
    with pytest.raises(UsageError, match="at least two"):
        standard_error(scores, np.zeros(60))


def test_large_sets_are_drawn_by_their_scores(monkeypatch):
    """The interval is that of drawing every item, within what 2,000 draws tell."""
    from radapter.evaluation import intervals

    scores = np.arange(6000) % 10 < 7
    items = [np.arange(6000)]
    quick = intervals.mean_interval([scores], items)
    monkeypatch.setattr(intervals, "LARGE", 10_000)
    slow = intervals.mean_interval([scores], items)
    spread = (0.7 * 0.3 / 6000) ** 0.5
    assert quick == pytest.approx(slow, abs=0.15 * spread)
    assert quick == pytest.approx((0.7 - 1.96 * spread, 0.7 + 1.96 * spread), abs=0.15 * spread)
    # Two sets over the same items stay drawn together: opposite scores have a mean that is fixed.
    monkeypatch.setattr(intervals, "LARGE", 5000)
    assert intervals.mean_interval([scores, ~scores], items * 2) == pytest.approx((0.5, 0.5))


def test_blocks_of_resamples_are_the_same_draws(monkeypatch):
    from radapter.evaluation import intervals

    generator = np.random.default_rng(6)
    scores = [generator.random(n) < 0.6 for n in (300, 300, 200)]
    clusters = [np.arange(300) // 3, np.arange(300) // 3, np.arange(200)]
    found = intervals.mean_interval(scores, clusters)
    monkeypatch.setattr(intervals, "BLOCK", intervals.RESAMPLES)
    assert intervals.mean_interval(scores, clusters) == found
    draws = np.random.default_rng(0).multinomial(100, np.full(100, 0.01), size=2000)
    means = [
        draws @ score.reshape(100, 3).sum(axis=1) / (3 * draws.sum(axis=1)) for score in scores[:2]
    ]
    assert intervals.mean_interval(scores[:2], clusters[:2]) == pytest.approx(
        tuple(np.quantile(np.mean(means, axis=0), [0.025, 0.975]))
    )


def test_the_interval_is_scipys(monkeypatch):
    """Two models on the same items: the mean difference, resampled in pairs."""
    stats = pytest.importorskip("scipy.stats")
    monkeypatch.setattr(intervals, "RESAMPLES", 20_000)  # so that draws matter little
    generator = np.random.default_rng(6)
    ours, theirs = generator.random(400) < 0.5, generator.random(400) < 0.6
    expected = stats.bootstrap(
        (ours.astype(float), theirs.astype(float)),
        lambda one, other, axis: (other - one).mean(axis=axis),
        paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=generator,
    ).confidence_interval  # fmt: skip
    found = mean_interval([theirs.astype(float) - ours], [np.arange(400)])
    assert found == pytest.approx((expected.low, expected.high), abs=0.003)
