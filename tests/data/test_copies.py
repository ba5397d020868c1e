"""Exact copies of pictures, within training and across it and what is held out."""

import dataclasses

from PIL import Image

from radapter.data import open_data
from radapter.data.copies import find_copies, lines_of_copies
from radapter.data.sources.folder import FolderData


def opened(root):
    return open_data(FolderData(source="folder", root=str(root)))


def draw(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)


def test_copies_are_counted_and_named(tmp_path):
    for i in range(4):
        draw(tmp_path / "train" / "a" / f"{i}.png", 10 * i)
    draw(tmp_path / "train" / "b" / "0 (1).png", 0)
    draw(tmp_path / "val" / "a" / "new.png", 200)
    for i in (1, 2):
        draw(tmp_path / "val" / "a" / f"{i}.png", 10 * i)
    found = find_copies(opened(tmp_path / "train"), opened(tmp_path / "val"))
    assert found == {
        "held_out": {"count": 2, "first": [["a/1.png", "a/1.png"], ["a/2.png", "a/2.png"]]},
        "train": {"count": 1, "first": [["b/0 (1).png", "a/0.png"]]},
    }
    lines = lines_of_copies(found)
    assert lines[0].startswith("duplicates: 2 held-out pictures are trained on too")
    assert lines[1].endswith("(b/0 (1).png = a/0.png)")
    assert not lines_of_copies(find_copies(opened(tmp_path / "val")))


def test_pictures_of_sizes_of_their_own_are_not_read(tmp_path):
    for i in range(3):
        draw(tmp_path / "a" / f"{i}.png", 10 * i)
        (tmp_path / "a" / f"{i}.png").open("ab").write(b"x" * i)

    def never(index):
        raise AssertionError("read")

    dataset = dataclasses.replace(opened(tmp_path), digest=never)
    assert find_copies(dataset) == {}


def test_what_is_gone_is_no_copy(tmp_path):
    for i in range(3):
        draw(tmp_path / "a" / f"{i}.png", 0)
    dataset = opened(tmp_path)
    (tmp_path / "a" / "0.png").unlink()
    (tmp_path / "a" / "1.png").unlink()
    assert find_copies(dataset) == {}
