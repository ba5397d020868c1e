"""Pictures without labels: which are found, in what order, and when they count as the same."""

import os

import pytest
from PIL import Image

from radapter.data.pictures import open_pictures
from radapter.errors import BrokenInput


def draw(path, colour=(9, 9, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/deep/er/x.JPG", "a/y.webp", ".hidden/z.png", "._b.png"):
        draw(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_a_folder_with_all_below_it(folder):
    found = open_pictures(folder)
    assert found.keys == ["a/deep/er/x.JPG", "a/y.webp", "b.png"]
    assert found.read(2).size == (8, 8)


def test_links_are_followed_and_loops_are_not(folder, tmp_path):
    draw(tmp_path / "elsewhere" / "c.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert open_pictures(folder).keys == ["a/deep/er/x.JPG", "a/y.webp", "b.png", "link/c.png"]


def test_one_picture(folder):
    found = open_pictures(folder / "b.png")
    assert (found.keys, found.read(0).size) == (["b.png"], (8, 8))


def test_a_table_needs_no_texts(folder, monkeypatch):
    (folder / "t.csv").write_text("filepath,other\nb.png,\na/y.webp,1\nb.png,2\n")
    monkeypatch.setenv("RADAPTER_DATA", "/nowhere")  # a path on the command line is from here
    monkeypatch.chdir(folder)
    found = open_pictures("t.csv")
    assert found.keys == ["b.png", "a/y.webp"]
    assert found.read(1).size == (8, 8)
    (folder / "t.tsv").write_text("picture\tother\nb.png\t1\n")
    assert open_pictures(folder / "t.tsv", "picture").keys == ["b.png"]
    with pytest.raises(BrokenInput, match=r"t\.csv has no column 'file'"):
        open_pictures(folder / "t.csv", "file")


def test_nothing_to_find(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BrokenInput, match=r"No pictures in .*empty or below it\. "):
        open_pictures(tmp_path / "empty")
    with pytest.raises(BrokenInput, match="No such picture, folder or table: .*nothing"):
        open_pictures(tmp_path / "nothing")
    (tmp_path / "t.csv").write_text("filepath\n")
    with pytest.raises(BrokenInput, match=r"t\.csv has no rows"):
        open_pictures(tmp_path / "t.csv")


def test_the_fingerprint_sees_names_sizes_and_times_and_no_place(folder, tmp_path):
    os.utime(folder / "b.png", ns=(1, 1))
    older = open_pictures(folder).fingerprint()
    os.utime(folder / "b.png", ns=(2, 2))  # as where another picture of that size took its place
    before = open_pictures(folder).fingerprint()
    moved = folder.rename(tmp_path / "moved")
    assert open_pictures(moved).fingerprint() == before
    (moved / "b.png").write_bytes((moved / "b.png").read_bytes() + b"x")
    changed = open_pictures(moved).fingerprint()
    (moved / "b.png").rename(moved / "c.png")
    renamed = open_pictures(moved).fingerprint()
    (moved / "c.png").unlink()
    assert len({older, before, changed, renamed, open_pictures(moved).fingerprint()}) == 5


def test_paths_in_a_table_as_other_programs_write_them(folder):
    (folder / "t.csv").write_text(f"filepath\na\\y.webp\nfile://{folder}/b.png\n")
    found = open_pictures(folder / "t.csv")
    assert len(found) == 2
    assert [found.read(i).size for i in range(2)] == [(8, 8)] * 2


def test_a_folder_of_videos_says_what_takes_them(tmp_path):
    (tmp_path / "1.mp4").touch()
    with pytest.raises(BrokenInput, match=r"written by radapter embed --frames 12$"):
        open_pictures(tmp_path)
