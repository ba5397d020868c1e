"""Which pictures are held out."""

import os
from collections import Counter

import pytest
from PIL import Image

from radapter import recipe as recipes
from radapter.data import open_data
from radapter.data.holding_out import by_class, by_hash
from radapter.data.sources.folder import FolderData
from radapter.data.sources.table import TableData
from radapter.run import Run


def names_of(classes):
    """{class: number of pictures} -> units and their labels."""
    pairs = [(f"{c}/{i}", c) for c, number in classes.items() for i in range(number)]
    return [unit for unit, _ in pairs], [c for _, c in pairs]


def test_every_class_is_on_both_sides_and_a_single_picture_in_training():
    units, labels = names_of({c: 1 if c < 200 else 5 for c in range(300)})
    held = by_class(units, labels, 0.1)
    number = Counter(label for unit, label in zip(units, labels, strict=True) if unit in held)
    assert all(number[c] == 0 for c in range(200))
    assert all(1 <= number[c] <= 4 for c in range(200, 300))
    crowded = by_class(*names_of(dict.fromkeys(range(50), 2)), 0.99)
    assert len(crowded) == 50


def test_classes_of_many_pictures_are_held_out_as_by_the_hash():
    units, labels = names_of({0: 400, 1: 400})
    assert by_class(units, labels, 0.1) == by_hash(units, 0.1)
    assert not by_class(units, labels, 0.0)


def test_a_class_that_grows_moves_one_picture_at_most():
    units, labels = names_of(dict.fromkeys(range(40), 8))
    before = by_class(units, labels, 0.1)
    units, labels = [*units, *(f"{c}/new" for c in range(40))], [*labels, *range(40)]
    moved = {unit.split("/")[0] for unit in before - by_class(units, labels, 0.1)}
    held_new = {u.split("/")[0] for u in by_class(units, labels, 0.1) if u.endswith("new")}
    assert moved <= held_new
    assert before - by_class(units, labels, 0.1) == {
        unit for unit in before if unit.split("/")[0] in moved
    }


def test_a_thing_of_several_classes_stays_together(tmp_path):
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},thing {i // 4}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["filepath,title,thing", *rows]))
    settings = {"source": "table", "path": str(tmp_path / "t.csv"), "group_column": "thing"}
    sides = [
        set(open_data(TableData(**settings, hold_out=0.3, split=split)).group_names)
        for split in ("train", "validation")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]


def folder(tmp_path, **classes):
    for name, number in classes.items():
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    return {"source": "folder", "root": str(tmp_path), "hold_out": 0.3}


def test_classes_that_are_too_small_are_said(tmp_path):
    settings = folder(tmp_path, many=9, one=1, single=1)
    for split in ("train", "validation"):
        (note,) = open_data(FolderData(**settings, split=split)).notes
        assert "2 classes have a single picture" in note
        assert note.endswith("held out: one, single")
    assert not open_data(FolderData(**settings, split="all")).notes


# ------------------------------------------------------------------ runs of older versions


RECIPE = """
name: old
model: pictogram-clip
method: {name: r-adapter}
data: {source: folder, root: ROOT, hold_out: 0.3}
"""


def test_a_run_of_an_older_version_keeps_what_it_held_out_and_how_it_read(tmp_path):
    settings = folder(tmp_path / "set", a=3, b=3) if (tmp_path / "set").mkdir() is None else {}
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("ROOT", settings["root"]))
    data = Run(tmp_path).recipe().data
    assert (data.hold_out_by, data.orientation, data.transparency) == ("hash", "ignore", "discard")
    held = open_data(data.model_copy(update={"split": "validation"}))
    assert set(held.keys) == by_hash(open_data(data.model_copy(update={"split": "all"})).keys, 0.3)
    # A new run says what it does, though its recipe did not.
    path.write_text(recipes.dump(recipes.load(path)))
    data = Run(tmp_path).recipe().data
    assert (data.hold_out_by, data.orientation) == ("class", None)


# ------------------------------------------------------------------ names that are not UTF-8


def test_names_that_are_not_utf8_are_read_held_out_and_hashed(tmp_path):
    root = os.fsencode(tmp_path) + b"/a"
    os.mkdir(root)
    for i in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
        try:
            os.rename(tmp_path / "x.png", root + b"/caf\xe9%d.png" % i)
        except OSError:
            pytest.skip("this file system has UTF-8 names only")
    settings = FolderData(source="folder", root=str(tmp_path), hold_out=0.5)
    dataset = open_data(settings)
    assert 0 < len(dataset) < 4
    assert dataset.read(0).size == (4, 4)
    assert len(dataset.fingerprint()) == 64
