"""Queries and gallery as one data set: names, classes, roles, and what is no answer."""

import pytest

from radapter.data.dataset import Dataset
from radapter.data.searched import of_classes, searchable
from radapter.errors import BrokenInput, UsageError


def dataset(source, names, classes, stamp=None, groups=None, **columns):
    own = sorted(set(classes))
    return Dataset(
        source, names, lambda i: f"{source} {names[i]}", labels=[own.index(c) for c in classes],
        class_names=own, groups=groups or list(range(len(names))),
        stamp=stamp and (lambda i: (stamp, 1, 1)), **columns,
    )  # fmt: skip


def test_another_picture_of_one_name_gets_another_name_and_classes_are_one_by_name():
    queries = dataset("sketches", ["1.png", "2.png"], ["Cat", "dog"], stamp=3)
    photos = dataset("photos", ["2.png", "3.png"], ["ant", "cat"], stamp=4)
    found = searchable(queries, [photos])
    assert found.keys == ["1.png", "gallery/2.png", "3.png"]
    assert [found.class_names[label] for label in found.labels] == ["Cat", "ant", "Cat"]
    assert found.searched == [1, 2, 2]
    assert [found.read(i) for i in range(3)] == ["sketches 1.png", "photos 2.png", "photos 3.png"]
    assert found.left_out == {"without answer": ["2.png"]}
    assert found.protocol["gallery"] == "2 pictures, photos; left out: the query's own picture"
    assert found.fingerprint() != searchable(photos, [queries]).fingerprint()


def test_a_picture_of_both_is_one():
    queries = dataset("all", ["1", "2"], ["a", "a"], stamp=3)
    found = searchable(queries, [queries, dataset("more", ["3"], ["a"], stamp=5)])
    assert (found.keys, found.searched) == (["1", "2", "3"], [3, 3, 2])
    assert searchable(queries, None).searched == [3, 3]


def test_what_is_left_out_is_by_picture_group_or_maker():
    queries = dataset("q", ["1", "2"], ["a", "a"], groups=[7, 8], makers=["x", "y"])
    gallery = dataset("g", ["3", "4"], ["a", "a"], groups=[7, 9], makers=["y", "z"])
    alike = {of: searchable(queries, [gallery], of).alike for of in ("picture", "group", "maker")}
    assert alike == {"picture": [0, 1, 2, 3], "group": [7, 8, 7, 9], "maker": [0, 1, 1, 2]}


def test_a_query_whose_only_right_pictures_are_left_out_has_no_answer():
    queries = dataset("q", ["1", "2"], ["a", "b"], groups=[7, 8])
    gallery = dataset("g", ["3", "4"], ["a", "b"], groups=[7, 9])
    assert searchable(queries, [gallery], "group").left_out == {"without answer": ["1"]}


def test_what_cannot_be_searched_is_said():
    queries = dataset("q", ["1"], ["a"])
    with pytest.raises(BrokenInput, match=r"^q has no query with a right picture in its gallery.$"):
        searchable(queries, [dataset("g", ["2"], ["b"])])
    with pytest.raises(UsageError, match=r"^q does not say who made its pictures, .* group\.$"):
        searchable(queries, [queries], "maker")


def test_classes_are_chosen_by_name_and_an_unknown_one_is_refused():
    queries = dataset("q", ["1", "2", "3"], ["Cat", "dog", "Cat"])
    assert of_classes(queries, ["cat"]).keys == ["1", "3"]
    with pytest.raises(UsageError, match=r"^q has no class 'dig'. Did you mean 'dog'\? "):
        of_classes(queries, ["cat", "dig"])
