"""Data that is scored among a model's classes, or as retrieval: what is left out is counted."""

import shutil

import pytest

from radapter import models
from radapter.data import open_data
from radapter.data.scored import among, captioned
from radapter.data.sources.folder import FolderData
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput
from radapter.evaluation.evaluate import evaluate
from radapter.evaluation.retrieval import caption_task
from radapter.evaluation.suite import Suite, SuiteDataset
from radapter.runtimes.opened import from_loaded


@pytest.fixture
def loaded(tiny_folder):
    return models.load(tiny_folder)


def scored(loaded, data, task="classification", **more):
    described = SuiteDataset(name="set", role="shifted", data=data, **more)
    suite = Suite(name="mine", tasks=[task], datasets=[described])
    return evaluate(suite, from_loaded(loaded))


def test_a_folder_of_other_classes_is_scored_among_those_of_the_model(loaded, shapes, tmp_path):
    """Two of the model's four are there, and one that the model does not know."""
    shutil.copytree(shapes / "red_square", tmp_path / "set" / "red_square")
    shutil.copytree(shapes / "blue_circle", tmp_path / "set" / "blue circle")
    shutil.copytree(shapes / "blue_circle", tmp_path / "set" / "strange")
    names = ["zebra", "red square", "cat", "blue circle"]
    data = FolderData(source="folder", root=str(tmp_path / "set"), split="all")
    found = scored(loaded, data, classes=names)
    facts = found.result()["datasets"]["set"]
    each = len(list((shapes / "red_square").iterdir()))
    assert facts["pictures"] == 2 * each
    assert facts["accuracy"]["chance"] == 1 / 4
    assert facts["left_out"]["in no class"]["count"] == each
    assert facts["protocol"]["classes"] == (
        "4 of the model; no pictures of zebra, cat; left out, as the model does not know them: "
        "strange"
    )
    dataset = among(open_data(data), names)
    assert {
        key.split("/")[0]: label for key, label in zip(dataset.keys, dataset.labels, strict=True)
    } == {
        "red_square": 1,
        "blue circle": 3,
    }
    with pytest.raises(BrokenInput, match=r"no picture of a class.*blue circle.*zebra"):
        among(open_data(data), ["zebra"])
    own = open_data(data)
    assert among(own, own.class_names) is own


def test_pictures_of_one_class_are_said(loaded, shapes, tmp_path):
    shutil.copytree(shapes / "red_square", tmp_path / "set" / "red_square")
    data = FolderData(source="folder", root=str(tmp_path / "set"), split="all")
    facts = scored(loaded, data).result()["datasets"]["set"]
    assert facts["accuracy"]["value"] == 1
    assert facts["remarks"] == ["there is one class to choose from, so every answer is right"]
    facts = scored(loaded, data, classes=["red square", "cat"]).result()["datasets"]["set"]
    assert facts["remarks"] == [
        "all pictures are of one class, red square: accuracy is how often it is named"
    ]


def captions(tmp_path, shapes, texts):
    pictures = sorted(shapes.glob("*/*.png"))[: len(texts)]
    rows = "".join(f"{path}\t{text}\n" for path, text in zip(pictures, texts, strict=True))
    (tmp_path / "t.tsv").write_text(f"filepath\ttitle\n{rows}")
    return TableData(source="table", path=str(tmp_path / "t.tsv"), task="captions", split="all")


def test_a_picture_without_a_caption_is_no_query_and_no_miss(shapes, tmp_path):
    import dataclasses

    every = open_data(captions(tmp_path, shapes, ["one", "two", "three"]))
    some = captioned(dataclasses.replace(every, captions=[["one"], [], ["three", " "]]))
    assert some.captions == [["one"], ["three"]]
    assert some.keys == [every.keys[0], every.keys[2]]
    assert some.left_out == {"without caption": [every.keys[1]]}
    assert captioned(every) is every
    with pytest.raises(BrokenInput, match="no picture with a caption"):
        captioned(dataclasses.replace(every, captions=[[], [""], []]))
    with pytest.raises(ValueError, match="a caption for every picture"):
        caption_task([["one"], []])


def test_captions_that_the_model_does_not_read_to_the_end_are_counted(loaded, shapes, tmp_path):
    start = "word " * 80
    texts = [f"{start}{i}" for i in range(3)] + ["a cat"]
    facts = scored(loaded, captions(tmp_path, shapes, texts), "retrieval").sets["set"].facts
    (remark,) = facts["remarks"]
    assert remark.startswith("3 of 4 captions are longer than the ")
    assert "word word" in remark


def test_classes_that_differ_in_case_are_the_models(shapes, tmp_path):
    shutil.copytree(shapes / "red_square", tmp_path / "set" / "Red_Square")
    shutil.copytree(shapes / "blue_circle", tmp_path / "set" / "blue circle")
    found = open_data(FolderData(source="folder", root=str(tmp_path / "set"), split="all"))
    scored = among(found, ["red square", "Blue Circle"])
    assert len(scored) == len(found)
    assert set(scored.labels) == {0, 1}
    assert not scored.left_out
