"""A fingerprint follows the content and no place; a stamp sees that a picture was replaced."""

import os
import shutil
import tarfile

import pytest
import trees

from radapter.data import open_data
from radapter.data.sources.clip_benchmark import ClipBenchmarkData
from radapter.data.sources.coco_captions import CocoCaptionsData
from radapter.data.sources.emoji import EmojiData
from radapter.data.sources.folder import FolderData
from radapter.data.sources.karpathy import KarpathyData
from radapter.data.sources.shards import ShardsData
from radapter.data.sources.table import TableData
from radapter.data.stores import file_stamp


def folder(root):
    for i in range(6):
        trees.jpeg(root / "tree" / ("cat", "dog")[i % 2] / f"{i}.jpg", i)
    return FolderData(source="folder", root=str(root / "tree"), split="all")


def table(root):
    rows = ["filepath,title"]
    for i in range(6):
        trees.jpeg(root / "pictures" / f"{i}.jpg", i)
        rows.append(f"{i}.jpg,picture {i}")
    (root / "t.csv").write_text("\n".join(rows))
    return TableData(
        source="table", path=str(root / "t.csv"), root=str(root / "pictures"), split="all"
    )


def shards(root):
    for number in range(2):
        samples = {}
        for i in range(3):
            samples[f"{i}.jpg"] = trees.encoded(3 * number + i, "JPEG")
            samples[f"{i}.txt"] = f"picture {i}".encode()
        trees.shard(root / f"{number}.tar", samples)
    return ShardsData(source="shards", shards=f"{root}/{{0..1}}.tar", task="captions", split="all")


def clip_benchmark(root):
    trees.clip_benchmark(root)
    return ClipBenchmarkData(source="clip-benchmark", root=str(root))


def karpathy(root):
    trees.flickr30k(root)
    path = str(root / "dataset_flickr30k.json")
    return KarpathyData(source="karpathy", path=path, split="test")


def coco(root):
    trees.coco(root)
    path = str(root / "annotations" / "captions_val2014.json")
    return CocoCaptionsData(source="coco-captions", path=path)


SOURCES = [folder, table, shards, clip_benchmark, karpathy, coco]


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_content_elsewhere_is_the_same_task(source, tmp_path):
    one = open_data(source(tmp_path / "one"))
    moved = source(tmp_path / "two" / "deeper")  # written at another moment too
    other = open_data(moved)
    assert one.fingerprint() == other.fingerprint()
    part = one.select(list(range(len(one) - 1)))
    assert part.fingerprint() == other.select(list(range(len(one) - 1))).fingerprint()
    assert part.fingerprint() != one.fingerprint()
    assert [part.stamp(i) for i in range(len(part))] == [one.stamp(i) for i in range(len(part))]


@pytest.mark.parametrize("source", [folder, table, karpathy, coco])
def test_a_replaced_picture_is_noticed(source, tmp_path):
    dataset = open_data(source(tmp_path))
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
    dataset = open_data(shards(tmp_path))
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
    dataset = open_data(folder(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # with times, as mv and rsync do
    settings = FolderData(source="folder", root=str(tmp_path / "two" / "tree"), split="all")
    other = open_data(settings)
    assert [other.stamp(i)[:2] for i in range(6)] == [dataset.stamp(i)[:2] for i in range(6)]
    assert other.fingerprint() == dataset.fingerprint()
