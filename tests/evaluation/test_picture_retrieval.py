"""Average precision and precision at k: against brute force, by hand, and over all orders."""

import itertools

import numpy as np
import pytest
import torch

from radapter.data.dataset import GALLERY, QUERY, Dataset
from radapter.errors import UsageError
from radapter.evaluation import picture_retrieval as module
from radapter.evaluation.picture_retrieval import NEVER, expected, measures, score
from radapter.evaluation.trivial import RawPixels


def brute_force(query, gallery, right, k):
    """Sorted, every tie before the right ones: (AP, at k, at k by those found, precision)."""
    order = sorted(range(len(gallery)), key=lambda j: (-float(query @ gallery[j]), right[j]))
    hits = [right[j] for j in order]
    at = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
    first = at[: sum(hits[:k])]
    return (
        sum(at) / max(1, len(at)),
        sum(first) / max(1, min(k, len(at))),
        sum(first) / max(1, len(first)),
        sum(hits[:k]) / max(1, min(k, len(hits))),
    )


@pytest.mark.parametrize("chunk", [1, 5, None])
def test_metrics_equal_a_brute_force_sort(chunk, monkeypatch):
    monkeypatch.setattr(module, "FIRST", 6)
    monkeypatch.setattr(module, "PRECISIONS", (6,))
    generator = np.random.default_rng(0)
    # Integers make the similarities exact and ties common.
    features = generator.integers(-2, 3, (60, 4)).astype(np.float32)
    labels = generator.integers(0, 5, 60)
    alike = generator.integers(0, 20, 60)
    roles = generator.choice([QUERY, GALLERY, QUERY | GALLERY], 60)
    dataset = Dataset(
        "", [str(i) for i in range(60)], None, labels=labels.tolist(), groups=[0] * 60,
        searched=roles.tolist(), alike=alike.tolist(),
    )  # fmt: skip
    values, _ = score(dataset, torch.from_numpy(features), chunk)
    wanted = []
    for i in np.flatnonzero(roles & QUERY):
        there = [j for j in np.flatnonzero(roles & GALLERY) if alike[j] != alike[i]]
        wanted.append(brute_force(features[i], features[there], labels[there] == labels[i], 6))
    found = [values[name] for name in ("map", "map_6", "map_6_found", "precision_6")]
    np.testing.assert_allclose(np.stack(found, 1), wanted, atol=1e-12)


def test_raw_pixels_have_no_texts():
    pixels = RawPixels([0.5, 0.5, 0.5], [0.2, 0.2, 0.2])
    assert pixels.encode_image(torch.rand(2, 3, 40, 32)).shape == (2, 256)
    with pytest.raises(UsageError, match="Raw pixels have no features of texts: score them in"):
        pixels.encode_text(torch.zeros(1, 4, dtype=torch.int64))


def test_by_hand():
    """Right pictures at ranks 1, 3 and 250: what each metric makes of them."""
    found = measures(np.array([[1, 3, 250]]), np.array([300]))
    assert found["map"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 250) / 3)
    assert found["map_200"] == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert found["map_200_found"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert [found[f"precision_{k}"][0] for k in (10, 100, 200)] == [0.2, 0.02, 0.01]
    # In a gallery of four, precision at 10 is of four; what is left out has no rank.
    few = measures(np.array([[2, NEVER]]), np.array([4]))
    assert few["map"] == 0.5
    assert few["precision_10"] == 0.25


def test_what_is_no_number_and_what_is_equal_count_against_us():
    nan = float("nan")
    roles, none = [QUERY, *[GALLERY] * 3], [0.0, 1.0]
    dataset = Dataset(
        "", list("abcd"), None, labels=[0, 0, 1, 1], searched=roles, alike=[0, 1, 2, 3]
    )
    rows = {"equal": [none] * 4, "right": [none, [nan, nan], none, [0.0, -1.0]],
            "wrong": [none, none, [nan, nan], [0.0, -1.0]]}  # fmt: skip
    precision = {name: score(dataset, torch.tensor(of))[0]["map"][0] for name, of in rows.items()}
    assert precision == {"equal": pytest.approx(1 / 3), "right": pytest.approx(1 / 3), "wrong": 0.5}


@pytest.mark.parametrize(("right", "size"), [(0, 4), (1, 1), (1, 5), (2, 6), (3, 6), (6, 6)])
def test_the_chance_is_the_mean_over_all_orders(right, size, monkeypatch):
    monkeypatch.setattr(module, "FIRST", 3)
    monkeypatch.setattr(module, "PRECISIONS", (1, 2, 3))
    orders = list(itertools.combinations(range(1, size + 1), right))
    found = measures(np.array(orders).reshape(len(orders), right), np.full(len(orders), size))
    means = {name: values.mean() for name, values in found.items()}
    assert expected(right, size) == {name: pytest.approx(mean) for name, mean in means.items()}
