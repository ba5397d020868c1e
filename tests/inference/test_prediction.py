"""Probabilities of classes: what a name that stands twice means."""

import pytest
import torch
from tiny_bundle import NAMES, PROMPTS

from radapter.classes import distinct
from radapter.data.pictures import open_pictures
from radapter.heads import zero_shot
from radapter.inference.prediction import predict
from radapter.runtimes.opened import from_loaded


def test_classes_of_one_name_are_one_answer(tiny, shapes):
    """A name that stands twice has its probability, not half of it twice: class folders
    `red_square` and `red square`, or a bundle of an earlier version with them."""
    opened, pictures = from_loaded(tiny), open_pictures(shapes / "red_square")
    once = list(predict(opened, pictures, {"names": NAMES, "prompts": PROMPTS}))
    doubled = {"names": [*NAMES, NAMES[0]], "prompts": [*PROMPTS, PROMPTS[0]]}
    assert list(predict(opened, pictures, doubled)) == once
    features = {"names": doubled["names"], "features": zero_shot.weights(opened, doubled)}
    for found, expected in zip(predict(opened, pictures, features), once, strict=True):
        assert [name for name, _ in found.labels] == [name for name, _ in expected.labels]
        assert sum(share for _, share in found.labels) == pytest.approx(1)


def test_the_first_of_a_name_is_kept():
    names, prompts = ["b", "a", "b", "c", "a"], [["1"], ["2"], ["3"], ["4"], ["5"]]
    assert distinct({"names": names, "prompts": prompts}) == {
        "names": ["b", "a", "c"],
        "prompts": [["1"], ["2"], ["4"]],
    }
    features = distinct({"names": names, "features": torch.arange(5.0)[:, None]})["features"]
    assert features.tolist() == [[0.0], [1.0], [3.0]]
