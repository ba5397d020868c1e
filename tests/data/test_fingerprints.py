"""A fingerprint follows the content and no place; a stamp sees that a picture was replaced."""

import os
import shutil
import tarfile

import pytest
import source_trees
from pydantic import TypeAdapter

from radapter.data import open_data
from radapter.data.opening import DataSource
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.folder import FolderData
from radapter.data.stores import file_stamp


def opened(name, root):
    settings = getattr(source_trees, name)(root)
    tree = {"source": name.replace("_", "-"), "data_root": str(root), **settings}
    return open_data(TypeAdapter(DataSource).validate_python(tree))


@pytest.mark.parametrize("name", ["folder", "table", "karpathy", "coco_captions"])
def test_a_replaced_picture_is_noticed(name, tmp_path):
    dataset = opened(name, tmp_path)
    place = len(dataset) - 1
    (path,) = tmp_path.rglob(dataset.keys[place].rpartition("/")[2])
    facts = path.stat()
    assert dataset.stamp(place) == file_stamp(path)
    assert file_stamp(path) == (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    stamps = [dataset.stamp(i) for i in range(len(dataset))]
    before = dataset.fingerprint()
    content = path.read_bytes()
    os.utime(path, ns=(0, 0))  # another picture of the same size
    assert dataset.fingerprint() == before
    assert [dataset.stamp(i) for i in range(len(dataset))][:place] == stamps[:place]
    assert dataset.stamp(place)[:2] == (stamps[place][0], 0)
    assert dataset.stamp(place)[2] > stamps[place][2]
    path.write_bytes(content + b"\0")
    assert dataset.fingerprint() != before
    path.unlink()
    assert dataset.stamp(place) == (-1, -1, -1)


def test_a_shard_that_was_written_anew_is_noticed(tmp_path):
    dataset = opened("shards", tmp_path)
    with tarfile.open(tmp_path / "0.tar") as shard:
        sizes = [shard.getmember(f"{i}.jpg").size for i in range(3)]
    changed = [(tmp_path / f"{i}.tar").stat().st_mtime_ns for i in range(2)]
    stamps = [dataset.stamp(i) for i in range(len(dataset))]
    assert [stamp[:2] for stamp in stamps[:3]] == [(size, changed[0]) for size in sizes]
    os.utime(tmp_path / "1.tar", ns=(5, 5))
    assert [dataset.stamp(i) for i in range(len(dataset))][:3] == stamps[:3]
    assert {dataset.stamp(i)[1] for i in range(3, 6)} == {5}


def test_the_built_in_set_has_stamps():
    dataset = open_data(EmojiData(source="emoji", styles=["noto"]))
    stamps = [dataset.stamp(i) for i in range(len(dataset))]
    assert len({size for size, *_ in stamps}) > 100
    assert len({changed for _, changed, _ in stamps}) == 1


def test_a_copied_folder_keeps_sizes_and_times(tmp_path):
    dataset = opened("folder", tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # with times, as mv and rsync do
    settings = FolderData(source="folder", root=str(tmp_path / "two" / "tree"), split="all")
    other = open_data(settings)
    assert [other.stamp(i)[:2] for i in range(6)] == [dataset.stamp(i)[:2] for i in range(6)]
    assert other.fingerprint() == dataset.fingerprint()
