"""Recall, subset recall and mAP at k: against brute force, by hand, over all orders."""

import itertools

import numpy as np
import pytest
import torch

from radapter.data.edits import MEASURES, Edit
from radapter.evaluation.composed import (
    best_weight,
    chance,
    first,
    mean_of_wordings,
    shares_of_kinds,
    summed_query,
    values,
)
from radapter.evaluation.suite import load_suite, shipped_suites


def brute_force(edit, query, features, measure):
    """All sorted, every wrong picture of a tie before the right ones."""
    ranked = list(edit.subset) if measure.subset else list(edit.gallery)
    if edit.without_reference:
        ranked = [i for i in ranked if i != edit.reference]
    ranked.sort(key=lambda i: (-float(query @ features[i]), i in edit.targets))
    hits = [i in edit.targets for i in ranked]
    if not measure.precision:
        return float(any(hits[: measure.k]))
    found = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits[: measure.k]) if hit]
    return sum(found) / min(measure.k, sum(hits))


def test_measures_equal_a_brute_force_sort():
    generator = np.random.default_rng(0)
    # Integers make the similarities exact and ties common.
    features = generator.integers(-2, 3, (40, 4)).astype(np.float32)
    queries = generator.integers(-2, 3, (30, 4)).astype(np.float32)
    shared = list(range(40))
    edits = []
    for number in range(30):
        reference, *others = generator.permutation(40).tolist()
        own = number % 3 == 0
        gallery = sorted([*others[:12], reference]) if own else shared
        edits.append(
            Edit(str(number), reference, ("x",), tuple(others[: 1 + number % 4]), gallery,
                 without_reference=number % 2 == 0, subset=tuple(others[:6]),
                 kind=("a", "b", "b")[number % 3])
        )  # fmt: skip
    found = values(edits, torch.from_numpy(queries), torch.from_numpy(features), list(MEASURES))
    for name, measure in MEASURES.items():
        wanted = [brute_force(e, q, features, measure) for e, q in zip(edits, queries, strict=True)]
        if measure.by_kind:
            kinds = {k: np.mean([w for w, e in zip(wanted, edits, strict=True) if e.kind == k])
                     for k in "ab"}  # fmt: skip
            assert found[name].mean() == pytest.approx(np.mean(list(kinds.values())))
        else:
            np.testing.assert_allclose(found[name], wanted, atol=1e-12)


def one(similarities, **columns):
    """An edit whose pictures have these similarities to its query, the reference first."""
    features = torch.tensor([[value] for value in similarities])
    edit = Edit("1", 0, ("x",), (1, 2), list(range(len(similarities))), **columns)
    found = values([edit], torch.ones(1, 1), features, list(MEASURES))
    return {name: value[0] for name, value in found.items()}


def test_by_hand():
    # Right pictures at ranks 2 and 4 of 5, the reference left out.
    found = one([9.0, 4.0, 2.0, 5.0, 3.0, 1.0], subset=(2, 4, 5))
    assert [found[f"r{k}"] for k in (1, 2, 3)] == [0, 1, 1]
    assert found["map_5"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert [found[f"subset_r{k}"] for k in (1, 2, 3)] == [0, 1, 1]
    # With the reference, which is most similar of all, ranks are 3 and 5.
    found = one([9.0, 4.0, 2.0, 5.0, 3.0, 1.0], subset=(2, 4, 5), without_reference=False)
    assert [found[f"r{k}"] for k in (1, 2, 3)] == [0, 0, 1]
    assert found["map_5"] == pytest.approx((1 / 3 + 2 / 5) / 2)


def test_ties_and_what_is_no_number_count_against_us():
    nan = float("nan")
    assert one([0.0, 1.0, 1.0, 1.0], subset=(1, 3))["r1"] == 0
    assert one([0.0, 1.0, 1.0, 1.0], subset=(1, 3))["map_5"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert one([0.0, nan, nan, 1.0], subset=(1, 3))["r1"] == 0
    assert one([0.0, 1.0, 0.0, nan], subset=(1, 3))["r1"] == 0


@pytest.mark.parametrize("name", ["r1", "r2", "r3", "map_5", "subset_r2"])
@pytest.mark.parametrize(("right", "size"), [(1, 4), (2, 5), (3, 6)])
def test_the_chance_is_the_mean_over_all_orders(name, right, size):
    edit = Edit(
        "1", size, ("x",), tuple(range(right)), list(range(size)), subset=tuple(range(size))
    )
    orders = list(itertools.permutations(range(size)))
    queries = torch.eye(len(orders))
    features = torch.cat([torch.tensor(orders, dtype=torch.float32).T, torch.zeros(1, len(orders))])
    found = values([edit] * len(orders), queries, features, [name])[name]
    assert chance([edit], MEASURES[name]) == pytest.approx(found.mean())


def test_the_weight_is_the_one_that_finds_most_and_kinds_count_the_same():
    pictures, texts = torch.eye(4)[:2], torch.eye(4)[2:]
    gallery = [0, 1, 2, 3, 4]
    edits = [Edit("1", 0, ("x",), (2,), gallery), Edit("2", 1, ("y",), (3,), gallery)]
    # The target is 0.7 of the text and 0.3 of the picture; a lure has more of the picture.
    targets = summed_query(pictures, texts, 0.7)
    features = torch.cat([pictures, targets, summed_query(pictures, texts, 0.4)[:1]])
    weight, value = best_weight(edits, pictures, texts, features)
    assert value == 1.0
    assert weight == 0.6  # the smallest that prefers the target to the lure
    many = [Edit("", 0, (), (), [], kind=kind) for kind in "abbb"]
    np.testing.assert_allclose(shares_of_kinds(many), [2, 2 / 3, 2 / 3, 2 / 3])


def test_wordings_are_averaged_and_normalised_again():
    edits = [Edit("1", 0, ("x", "y"), (), []), Edit("2", 0, ("z",), (), [])]
    found = mean_of_wordings(edits, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))


def test_what_goes_to_a_server_is_in_order_without_the_reference():
    edit = Edit("1", 0, ("x",), (), [0, 1, 2, 3, 4], subset=(1, 4))
    similarity = np.array([9.0, 1.0, float("nan"), 3.0, 3.0])
    assert first(edit, similarity, 50) == [3, 4, 1, 2]
    assert first(edit, similarity, 2) == [3, 4]
    assert first(edit, similarity, 3, subset=True) == [4, 1]


def test_suites_say_what_the_built_in_model_has_seen():
    suites = [load_suite(name) for name in shipped_suites()]
    composed = [suite for suite in suites if suite.tasks == ["composed"]]
    assert len(composed) == 3
    assert all("pictogram-clip" in suite.seen for suite in composed)
