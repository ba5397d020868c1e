"""`eval --data` scores what lies at a path, and never the training half of it in silence."""

import json
import tarfile

import pytest
import tiny
import trees

from radapter.data import open_data
from radapter.errors import UsageError
from radapter.evaluation.own_data import suite_of


@pytest.fixture
def scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADAPTER_DATA", "")

    def call(path):
        return open_data(suite_of(path, ["a {}."]).datasets[0].data).keys

    return call


@pytest.mark.parametrize("names", [("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_folders_of_splits_are_refused(scored, tmp_path, names):
    for name in names:
        tiny.draw_shapes(tmp_path / "s" / name, each=2)
    with pytest.raises(UsageError, match=f"--data s/{names[-1]}"):
        scored("s")
    assert len(scored(f"s/{names[-1]}")) == 6


def test_one_split_alone_is_all_that_lies_there(scored, tmp_path):
    tiny.draw_shapes(tmp_path / "s" / "train", each=2)
    assert len(scored("s")) == 6


def karpathy(root, splits):
    trees.flickr30k(root)
    path = root / "dataset_flickr30k.json"
    content = json.loads(path.read_text())
    content["images"] = [image for image in content["images"] if image["split"] in splits]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val", "test")])
def test_a_caption_file_is_scored_on_its_test_split(scored, tmp_path, splits):
    karpathy(tmp_path / "f", splits)
    assert len(scored("f")) == 4


def test_a_caption_file_without_a_test_split(scored, tmp_path):
    karpathy(tmp_path / "f", ("train", "val"))
    with pytest.raises(UsageError, match="no test split"):
        scored("f")


def test_rows_of_splits_are_refused(scored, tmp_path):
    rows = [f"{i}.jpg,{'cat' if i % 2 else 'dog'},{'test' if i > 3 else 'train'}" for i in range(6)]
    for i in range(6):
        trees.jpeg(tmp_path / "s" / f"{i}.jpg", i)
    (tmp_path / "s/a.csv").write_text("\n".join(["image,label,split", *rows]))
    with pytest.raises(UsageError, match="a folder or table of its own"):
        scored("s")


def test_shards_of_splits_are_refused(scored, tmp_path):
    trees.jpeg(tmp_path / "0.jpg", 0)
    (tmp_path / "0.txt").write_text("a picture")
    (tmp_path / "s").mkdir()
    for name in ("train", "test"):
        with tarfile.open(tmp_path / "s" / f"{name}-000.tar", "w") as tar:
            for ending in ("jpg", "txt"):
                tar.add(tmp_path / f"0.{ending}", f"{name}0.{ending}")
    with pytest.raises(UsageError, match="splits"):
        scored("s")


def test_paths_of_several_splits_are_refused(scored, tmp_path):
    for i in range(6):
        trees.jpeg(tmp_path / "s" / ("train" if i < 4 else "test") / f"{i}.jpg", i)
    names = [f"{'train' if i < 4 else 'test'}/{i}.jpg,a picture {i}" for i in range(6)]
    (tmp_path / "s/a.csv").write_text("\n".join(["image,caption", *names]))
    with pytest.raises(UsageError, match="several splits"):
        scored("s")
