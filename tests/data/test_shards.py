"""Shards as people have them: parts appended, members of macOS, samples that lack something."""

import gzip
import io
import json
import tarfile

import pytest
import trees

from radapter.data import open_data
from radapter.data.copies import find_copies
from radapter.data.sources.clip_benchmark import ClipBenchmarkData
from radapter.errors import BrokenInput, UsageError

from .test_sources import colour, pixel, png, sample, shards, tar


def append(path, members):
    with tarfile.open(path, "a") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def part(start, absent=()):
    members = {}
    for i in range(5):
        members |= sample(start + i, f"text {start + i}", key=f"{i:04d}")
    return {name: data for name, data in members.items() if name not in absent}


def test_two_parts_numbered_alike_are_ten_samples(tmp_path):
    path = tar(tmp_path / "s.tar", part(0))
    append(path, part(5))
    found = open_data(shards(path))
    assert found.captions == [[f"text {i}"] for i in range(10)]
    assert [pixel(found, i) for i in range(10)] == [colour(i) for i in range(10)]
    assert found.keys[0] == "s.tar/0000"
    assert found.keys[5] == "s.tar/0000#2"


def test_no_picture_gets_the_caption_of_another_part(tmp_path):
    path = tar(tmp_path / "s.tar", part(0, absent=["0001.txt"]))
    append(path, part(5, absent=["0000.txt"]))
    with pytest.raises(BrokenInput, match=r"s\.tar/0001 has no caption"):
        open_data(shards(path))
    found = open_data(shards(path, broken_images=2))
    assert found.left_out == {"without caption": ["s.tar/0001", "s.tar/0000#2"]}
    assert found.captions == [[f"text {i}"] for i in (0, 2, 3, 4, 6, 7, 8, 9)]
    assert [pixel(found, i) for i in range(8)] == [colour(i) for i in (0, 2, 3, 4, 6, 7, 8, 9)]
    assert found.protocol["pictures without a caption"] == "2, left out"


def test_a_member_that_could_belong_to_two_samples_is_an_error(tmp_path):
    """Names repeat here, so the caption that stands by itself may be of either part."""
    path = tar(tmp_path / "s.tar", part(0, absent=["0003.txt"]))
    append(path, part(5, absent=["0003.png"]))
    with pytest.raises(BrokenInput, match=r"0003\.txt does not follow the sample 0003"):
        open_data(shards(path))


def test_members_sorted_by_extension_are_whole_samples(tmp_path):
    members = part(0)
    path = tar(tmp_path / "s.tar", dict(sorted(members.items(), key=lambda item: item[0][-3:])))
    found = open_data(shards(path))
    assert found.captions == [[f"text {i}"] for i in range(5)]
    assert [pixel(found, i) for i in range(5)] == [colour(i) for i in range(5)]


def test_members_of_macos_are_passed_over_and_counted(tmp_path):
    junk = {"._0000.png": b"junk", "__MACOSX/0001.png": b"junk", "a/.DS_Store": b"junk"}
    found = open_data(shards(tar(tmp_path / "s.tar", junk | part(0))))
    assert len(found) == 5
    assert found.left_out == {"hidden": [f"s.tar/{name}" for name in junk]}


def test_dots_in_names_are_told_with_the_members(tmp_path):
    path = tar(tmp_path / "s.tar", part(0) | {"IMG_2.0.jpg": png(1), "IMG_2.0.txt": b"two"})
    with pytest.raises(BrokenInput, match=r"IMG_2 has no .*: its members are IMG_2\.0\.jpg, IMG"):
        open_data(shards(path))


@pytest.mark.parametrize(
    ("lost", "reason"), [("0002.png", "without picture"), ("0002.txt", "without caption")]
)
def test_samples_that_lack_something_are_skipped_up_to_the_limit(tmp_path, lost, reason):
    path = tar(tmp_path / "s.tar", part(0, absent=[lost]))
    found = open_data(shards(path, broken_images=1, samples=5))
    assert len(found) == 4
    assert found.left_out == {reason: ["s.tar/0002"]}
    assert [pixel(found, i) for i in range(4)] == [colour(i) for i in (0, 1, 3, 4)]


def test_a_sample_without_a_class(tmp_path):
    path = tar(tmp_path / "s.tar", sample(0, label=0) | sample(1) | sample(2, label=1))
    values = {"task": "classification", "class_names": ["a", "b"]}
    with pytest.raises(BrokenInput, match=r"0001 has no class \(\.cls\)"):
        open_data(shards(path, **values))
    found = open_data(shards(path, broken_images=1, **values))
    assert (found.labels, found.left_out) == ([0, 1], {"in no class": ["s.tar/0001"]})


def test_pictures_with_empty_captions_reach_no_score(tmp_path):
    members = part(0) | {"0001.txt": b" \n", "0004.txt": b""}
    found = open_data(shards(tar(tmp_path / "s.tar", members), broken_images=2))
    assert found.captions == [["text 0"], ["text 2"], ["text 3"]]
    assert found.groups == [0, 1, 2]


def test_a_tar_that_ends_between_two_members_is_cut_short(tmp_path):
    path = tar(tmp_path / "s.tar", part(0))
    with tarfile.open(path) as file:
        ends = file.getmember("0003.png").offset
    path.write_bytes(path.read_bytes()[:ends])
    with pytest.raises(BrokenInput, match=r"s\.tar is cut short: it has no end of archive"):
        open_data(shards(path))


def test_the_counts_of_img2dataset_are_compared(tmp_path):
    path = tar(tmp_path / "00000.tar", part(0))
    beside = tmp_path / "00000_stats.json"
    beside.write_text(json.dumps({"count": 7, "successes": 5, "failed_to_download": 2}))
    assert len(open_data(shards(path))) == 5
    beside.write_text(json.dumps({"count": 7, "successes": 6}))
    with pytest.raises(BrokenInput, match=r"has 5 samples, not 6, by the 00000_stats\.json"):
        open_data(shards(path))


def test_gaps_in_the_numbers_are_said(tmp_path):
    for number in (0, 3):
        tar(tmp_path / f"train-{number:03}.tar", part(0))
    found = open_data(shards(tmp_path / "train-{000,003}.tar"))
    assert found.left_out == {"missing": ["train-001.tar", "train-002.tar"]}


def test_captions_of_json_members(tmp_path):
    about = {"caption": "a cat", "url": "x", "more": ["one", " ", "two"]}
    members = sample(0) | {"0000.json": json.dumps(about).encode()}
    path = tar(tmp_path / "s.tar", members)
    with pytest.raises(UsageError, match=r"has caption, url, more: data\.captions_in takes one"):
        open_data(shards(path))
    assert open_data(shards(path, captions_in=".json:caption")).captions == [["a cat"]]
    assert open_data(shards(path, captions_in=".json:more")).captions == [["one", "two"]]


def test_a_compressed_shard_says_how_to_unpack_it(tmp_path):
    path = tar(tmp_path / "s.tar", part(0))
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(BrokenInput, match=r"s\.tar\.gz is compressed.*gunzip"):
        open_data(shards(packed))


def test_clip_benchmarks_shards_too(tmp_path):
    root = trees.clip_benchmark(tmp_path / "set", "retrieval", ("test",))
    append(root / "test" / "1.tar", {"lone.txt": b"text"})
    settings = ClipBenchmarkData(
        source="clip-benchmark",
        root=str(root),
        dataset_split="test",
        task="captions",
        broken_images=1,
    )
    assert open_data(settings).left_out == {"without picture": ["1.tar/lone"]}


def test_two_tar_files_behind_one_another_are_an_error(tmp_path):
    """As `cat a.tar b.tar` writes them: reading ends with the first."""
    first, second = (tar(tmp_path / f"{name}.tar", part(0)) for name in "ab")
    (tmp_path / "c.tar").write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(BrokenInput, match=r"c\.tar goes on after its end-of-archive marker"):
        open_data(shards(tmp_path / "c.tar"))


def test_copies_in_shards_are_found(tmp_path):
    found = open_data(
        shards(tar(tmp_path / "s.tar", part(0) | {"copy.png": png(0), "copy.txt": b"x"}))
    )
    assert find_copies(found)["train"] == {"count": 1, "first": [["s.tar/copy", "s.tar/0000"]]}
