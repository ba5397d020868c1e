"""What is found first, and which pictures are shown, against a search one by one."""

import base64

import numpy as np
import pytest
import torch

from radapter.data import Dataset
from radapter.data.edits import Edit
from radapter.evaluation import composed, picture_retrieval
from radapter.evaluation.answers import _packed, unpacked
from radapter.evaluation.picture_retrieval import first_of
from radapter.evaluation.shown import drawn


def one_by_one(similarity, right, left_out):
    """(first, best right, rank) of one query; what is wrong stands before what is as similar."""
    places = [i for i in range(len(similarity)) if not left_out[i]]

    def key(i):
        value = similarity[i]
        if np.isnan(value):
            value = -np.inf if right[i] else np.inf
        return (-value, right[i], i)

    order = sorted(places, key=key)
    rank, best = next((n, i) for n, i in enumerate(order, 1) if right[i])
    return order[0], best, rank


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_first(seed):
    generator = np.random.default_rng(seed)
    similarity = generator.integers(0, 5, (40, 12)) / 4  # many ties
    similarity[generator.random((40, 12)) < 0.05] = np.nan
    right, left_out = generator.random((40, 12)) < 0.3, generator.random((40, 12)) < 0.2
    right[:, 3], left_out[:, 3] = True, False
    found = first_of(similarity, right, left_out)
    for row in range(40):
        first, best, rank = one_by_one(similarity[row], right[row], left_out[row])
        assert found[2][row] == rank
        assert found[1][row] == best
        assert found[0][row] == first


def test_of_pictures_the_ranks_are_those_that_are_scored():
    """Rank 1 is where precision begins, whatever the chunk."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(30, 4, generator=generator), dim=1)
    dataset = Dataset(
        "x", [str(i) for i in range(30)], lambda i: None, labels=[i % 3 for i in range(30)],
        class_names=list("abc"), searched=[1] * 10 + [2] * 15 + [3] * 5, alike=list(range(30)),
    )  # fmt: skip
    first, best, ranks = picture_retrieval.firsts(dataset, features)
    for chunk in (1, 4):
        for one, two in zip(
            (first, best, ranks), picture_retrieval.firsts(dataset, features, chunk), strict=True
        ):
            assert (one == two).all()
    queries = [i for i in range(30) if dataset.searched[i] & 1]
    gallery = [i for i in range(30) if dataset.searched[i] & 2]
    for row, query in enumerate(queries):
        near = sorted(
            (i for i in gallery if i != query), key=lambda i: -features[query] @ features[i]
        )
        right = [i for i in near if dataset.labels[i] == dataset.labels[query]]
        assert first[row] == near[0]
        assert (best[row], ranks[row]) == (right[0], near.index(right[0]) + 1)


def test_of_edits_the_first_is_in_the_gallery_without_the_reference():
    features = torch.eye(4)
    queries = torch.nn.functional.normalize(torch.tensor([[3.0, 2, 1, 0], [0, 0, 1, 2]]), dim=1)
    edits = [
        Edit("a", 0, ("x",), (2,), [0, 1, 2, 3], without_reference=True),
        Edit("b", 1, ("x",), (3, 2), [0, 2, 3]),
    ]
    assert composed.firsts(edits, queries, features) == ([1, 3], [2, 3], [2, 1])


def test_which_are_shown_does_not_depend_on_their_order():
    names = [f"{i}.png" for i in range(50)]
    few = drawn(names, 5)
    assert drawn(names[::-1], 5) == few != names[:5]
    assert drawn(range(50), 5, names) == [names.index(name) for name in few]


def test_class_numbers_of_pixels_come_back():
    named = np.random.default_rng(0).integers(0, 700, (13, 17))
    assert (unpacked(_packed(named)) == named).all()
    with pytest.raises(ValueError, match="cannot identify"):
        unpacked(base64.b64encode(b"no picture").decode())
