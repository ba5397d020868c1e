"""Which files are pictures of a set, what its classes are called."""

import os

import pytest
from PIL import Image

from radapter.data import open_data
from radapter.data.class_names import class_name, gathered
from radapter.data.listing import list_pictures
from radapter.data.pictures import open_pictures
from radapter.data.sources.folder import FolderData
from radapter.data.sources.table import TableData
from radapter.errors import BrokenInput


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"avif": "AVIF", "jfif": "JPEG", "ppm": "PPM"}.get(path.suffix[1:])
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path, kind)


def opened(root, **more):
    return open_data(FolderData(source="folder", root=str(root), **more))


@pytest.fixture
def messy(tmp_path):
    for name in ("a/1.png", "a/2.jfif", "a/more/3.PPM", "b/1.png"):
        picture(tmp_path / name)
    for name in (
        "a/.ipynb_checkpoints/1-checkpoint.png",
        "a/._1.png",
        "__MACOSX/a/1.png",
        "a/@eaDir/1.png",
    ):
        picture(tmp_path / name)
    picture(tmp_path / "beside.png")
    (tmp_path / "a" / "4.heic").write_bytes(b"ftyp")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / ".DS_Store").write_text("no picture either")
    return tmp_path


def test_a_folder_counts_what_it_passes_over(messy):
    dataset = opened(messy)
    assert dataset.keys == ["a/1.png", "a/2.jfif", "a/more/3.PPM", "b/1.png"]
    assert dataset.class_names == ["a", "b"]
    assert dataset.left_out == {
        "ending": ["a/4.heic", "a/notes.txt"],
        "hidden": [
            "__MACOSX/a/1.png",
            "a/._1.png",
            "a/.ipynb_checkpoints/1-checkpoint.png",
            "a/@eaDir/1.png",
        ],
        "in no class": ["beside.png"],
    }


def test_pictures_to_use_are_those_that_can_be_trained_on(messy):
    found = open_pictures(messy)
    assert found.keys == ["a/1.png", "a/2.jfif", "a/more/3.PPM", "b/1.png", "beside.png"]
    assert set(found.left_out["hidden"]) == set(opened(messy).left_out["hidden"])
    assert found.left_out["ending"] == ["a/4.heic", "a/notes.txt"]


def test_links_are_followed_and_circles_are_not(tmp_path):
    picture(tmp_path / "set" / "a" / "1.png")
    picture(tmp_path / "set" / "b" / "2.png")
    picture(tmp_path / "elsewhere" / "3.png")
    (tmp_path / "set" / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "further").symlink_to(tmp_path)
    assert opened(tmp_path / "set").keys == ["a/1.png", "a/linked/3.png", "b/2.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(BrokenInput, match=r"/a: Permission denied"):
            list_pictures(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)


def test_a_class_without_a_picture_says_what_lies_there(tmp_path):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.heic").write_bytes(b"ftyp")
    with pytest.raises(BrokenInput, match=r"b has no pictures \(left out: 1 .*1 \.heic"):
        opened(tmp_path)


# ------------------------------------------------------------------ names


def test_folders_of_one_name_are_one_class(tmp_path):
    for name in ("red square", "red_square", "Cat", "cat", "blue_disc"):
        picture(tmp_path / name / "1.png")
    dataset = opened(tmp_path)
    assert dataset.class_names == ["Cat", "blue disc", "red square"]
    assert dataset.keys == [f"{k}/1.png" for k in ("Cat", "blue_disc", "cat", "red square",
                                                   "red_square")]  # fmt: skip
    assert dataset.labels == [0, 1, 0, 2, 2]
    assert [note.partition(": ")[2] for note in dataset.notes] == [
        "'Cat', 'cat'",
        "'red square', 'red_square'",
    ]


def test_the_cells_of_a_table_that_make_one_class_are_one(tmp_path):
    rows = ["filepath,title", "1.png,Cat", "2.png,cat", "3.png,dog"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    settings = TableData(source="table", path=str(tmp_path / "t.csv"))
    dataset = open_data(settings)
    assert (dataset.class_names, dataset.labels) == (["Cat", "dog"], [0, 0, 1])
    assert len(dataset.notes) == 1


def test_accents_and_spaces_make_no_class_of_their_own():
    assert gathered(["café", "dog", "café", "a  b", "A b"]) == (
        ["café", "dog", "a  b"],
        [0, 1, 0, 2, 2],
    )


def test_a_class_that_cannot_be_written_is_refused():
    assert class_name("red_square") == "red square"
    with pytest.raises(BrokenInput, match="not UTF-8"):
        class_name("caf\udce9")
